"""Every reason that the operator gives, in conditions, events, rollbacks and the timeline: what it means, what to do.

The table in docs/troubleshooting.md is generated from here. A reason is one CamelCase word, as the Kubernetes API
conventions want it, and never changes its meaning: alerts and scripts go by it.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """`meaning` is one sentence; `advice` says what to do, empty where nothing is to be done."""

    meaning: str
    advice: str

    def __new__(cls, value: str, meaning: str, advice: str = "") -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning, member.advice = meaning, advice
        return member

    @property
    def shown(self) -> str:
        """As it is found in a status: what begins with the name of a gate has an ellipsis for it."""
        return f"…{self.value}" if self in _COMPOSED else self.value

    # --- a revision begins, goes on, ends ---

    INITIAL_REVISION = "InitialRevision", "The first revision of this resource is being started."
    REVISION_SERVING = "RevisionServing", "The first revision serves."
    REVISION_ADOPTED = (
        "RevisionAdopted",
        "The status was lost, after a restore from a backup for example, and a serving revision was found.",
        "nothing; a canary that was found beside it is taken out of traffic",
    )
    ROLLOUT_STARTED = "RolloutStarted", "A new revision is rolled out; the message names its steps."
    CANARY_READY = "CanaryReady", "The canary's pods are available, so it gets its first weight."
    ALL_GATES_PASS = "AllGatesPass", "Every gate passed and the hold is over, so the rollout takes its next step."
    STEP_LOWERED = "StepLowered", "The weight of the present step was lowered in the spec."
    WEIGHT_CHANGED = "WeightChanged", "The canary's weight was changed; the message has the old and the new one."
    WEIGHT_REPAIRED = (
        "WeightRepaired",
        (
            "Somebody else changed the route's weights or a Service's selector; it was changed back and the hold "
            "restarts. From the third time within an hour on the resource is `Stalled`."
        ),
        "the message names who wrote it; change the steps of the spec instead, or stop the controller that writes it",
    )
    SCALED_TO_ZERO = "ScaledToZero", "`spec.replicas` is 0: the canary begins again when there are replicas."
    PROMOTED = "Promoted", "The canary became the stable revision; its pods were not restarted."
    RETURNED_TO_STABLE = (
        "ReturnedToStable",
        "The spec asks for the stable revision again, so the canary was taken out of traffic.",
    )
    SUPERSEDED = (
        "Superseded",
        "The spec asks for a third revision: the canary was taken out of traffic and the new one starts from stable.",
    )
    ROLLED_BACK = "RolledBack", "A rejected revision was taken out of traffic."
    TRAFFIC_REMOVED = "TrafficRemoved", "A rolled back revision was seen to get no more traffic."
    CAPACITY_REMOVED = "CapacityRemoved", "The pods of a revision without traffic were scaled down."

    # --- rollbacks: what a pod did ---

    CRASH_LOOP_BACK_OFF = (
        "CrashLoopBackOff",
        "The container exited twice.",
        (
            "the message has its exit code and its last line; `kubectl logs --previous` while the pods are there "
            "(`rollback.scaleDownDelaySeconds`)"
        ),
    )
    OOM_KILLED = (
        "OOMKilled",
        "The container exceeded its memory limit.",
        "raise `spec.resources.limits.memory`; the bundled server needs about 700 Mi",
    )
    IMAGE_UNAVAILABLE = (
        "ImageUnavailable",
        "The registry does not have the image, or its name cannot be used.",
        "the message ends with the registry's words; fix `spec.image`, or push the image and order a retry",
    )
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "The server runs and found no weights at the place that was asked for.",
        "the message names the file; compare `spec.model` with the content of the volume",
    )
    MODEL_CHECKSUM_MISMATCH = (
        "ModelChecksumMismatch",
        "The weights are not those that `spec.model.sha256` asks for.",
        "the message has both checksums; compare with `sha256sum weights.npz`",
    )
    MODEL_FORMAT_INVALID = "ModelFormatInvalid", "The weights could not be read.", "train or copy them again"
    MODEL_LOAD_FAILED = "ModelLoadFailed", "Loading the weights failed.", "the message has the error"
    MODEL_WARM_UP_FAILED = (
        "ModelWarmUpFailed",
        "Pricing failed during the warm-up.",
        "the message has the error",
    )
    MODEL_RUNTIME_FAILED = "ModelRuntimeFailed", "The library that evaluates the model failed.", "see the pod's log"
    MODEL_SELF_CHECK_FAILED = (
        "ModelSelfCheckFailed",
        "The model does not reproduce its own golden prices, so the server refuses to serve it.",
        "train it again, or use the image that it was trained with",
    )
    NOT_READY = (
        "NotReady",
        (
            "Running pods, at least one in five, were not ready within `rollback.readyDeadlineSeconds`, or were ready "
            "and then unready for `rollback.unreadySeconds`, while pods of the other revision were well."
        ),
        "the message ends with the words of the pod",
    )
    NO_PODS = (
        "NoPods",
        "No pod of a revision exists, and nothing says why. The rollout waits.",
        "check that kube-controller-manager runs; `kubectl describe replicaset`",
    )

    # --- rollbacks: what was measured; the name of the gate comes before it ---

    ABOVE_STABLE = (
        "AboveStable",
        (
            "The canary is worse than stable is at the same time, and chance does not explain it "
            "(`ErrorRateAboveStable`, `LatencyP95AboveStable`, …)."
        ),
        "`status.lastRollback` has both values; apply a fixed spec",
    )
    OUT_OF_BOUNDS = (
        "OutOfBounds",
        "The gate was outside its `abort` bound for as long as that allows (`ErrorRateOutOfBounds`, …).",
        "`status.lastRollback` has value and limit; apply a fixed spec, or correct the bound",
    )

    # --- conditions ---

    SERVING = "Serving", "Enough replicas of the stable revision are available."
    NOT_ENOUGH_REPLICAS = (
        "NotEnoughReplicas",
        "Too few replicas of the stable revision are available.",
        "`kubectl describe pods -l pinn.dev/service=NAME`",
    )
    NOTHING_SERVES = "NothingServes", "No revision has been accepted yet.", "read the condition `Stalled`"
    SERVICE_MISSING = (
        "ServiceMissing",
        "A Service that the operator needs does not exist, or belongs to something else.",
        "the event `NameTaken` names it: rename one of the two, or delete it if nobody needs it",
    )
    INVALID_SPEC = (
        "InvalidSpec",
        (
            "The spec cannot be used; the last valid one stays in force with its gates armed, the weight does not rise "
            "and replicas stay as they are."
        ),
        "the message names every field and what would be right",
    )
    PAUSED = (
        "Paused",
        "`spec.paused` is true: no weight rises. Gates stay armed, and a bad canary is still rolled back.",
        'set `spec.paused` to false: `kubectl patch pinnservice NAME --type=merge -p \'{"spec":{"paused":false}}\'`',
    )
    DELETING = (
        "Deleting",
        "A finalizer of somebody else's keeps the deleted resource: pods serve on, gates stay armed, no weight rises.",
        "look at `metadata.finalizers` and at whoever is to remove them",
    )
    RESUMED = (
        "Resumed",
        "`spec.paused` is false again, or what had suspended the rollout is over: its step begins anew.",
    )
    ANALYSIS_DEADLINE_EXCEEDED = (
        "AnalysisDeadlineExceeded",
        "The hold and `analysis.deadlineSeconds` are over and not every gate passes; the weight stays where it is.",
        "read the gate that the message names; send traffic, correct its bounds, or apply another spec",
    )
    ROLLBACK_HELD = (
        "RollbackHeld",
        "The canary is bad and keeps its weight: `rollback.mode` is `Hold`, or it is the only healthy copy.",
        "decide whether to go on or to revert (apply the previous spec); or scale up or fix the stable revision",
    )
    STABLE_REPLICAS_MISSING = (
        "StableReplicasMissing",
        "Some pods of the stable revision are not available.",
        "look at the pods",
    )
    READY_PODS = "ReadyPods", "Pods of the revision are ready, so their server's own model checks passed."
    NO_READY_POD = "NoReadyPod", "No pod of the revision is ready yet, so nothing is known about its model."
    ANSWERING = "Answering", "The source of metrics answers."
    QUERY_FAILED = (
        "QueryFailed",
        "Prometheus did not answer, or refused a query; the message quotes the error.",
        "the rollout holds, pod failures stay armed, and it goes on by itself once Prometheus answers again",
    )
    WEBHOOK_FAILED = (
        "WebhookFailed",
        "The webhook of a gate did not answer, or with something else than a verdict; the message quotes it.",
        "the rollout holds and goes on by itself once the webhook answers again",
    )
    CREDENTIALS_UNREADABLE = (
        "CredentialsUnreadable",
        "A Secret, ConfigMap or file that a webhook or the login to Prometheus needs cannot be read or used.",
        (
            "the message names it: add it to `metricsSecrets` or `metricsConfigMaps` of the chart (`helm upgrade`), or "
            "correct its key"
        ),
    )
    PODS_ANSWER = "PodsAnswer", "The operator reads the request counters of the pods themselves."
    PODS_NOT_READABLE = (
        "PodsNotReadable",
        "The operator cannot read `/metrics` of some ready pods; the message names them and says why.",
        "check that the operator may reach the pods' port (NetworkPolicy), and that they serve `/metrics` there",
    )
    CACHES_RESET = "CachesReset", "A gate had the caches of the canary's pods reset, and is judged again later."
    CACHES_NOT_RESET = (
        "CachesNotReset",
        "Some pods did not take `POST /cache/reset`; the message names them and says why.",
        "if the gate still fails, the revision is rolled back",
    )
    IN_FORCE = "InForce", "The router reports that it uses the wanted weight."
    WEIGHT_PENDING = (
        "WeightPending",
        "A new weight is written and the router has not reported it yet; this takes seconds.",
        "if it stays, look at the route's status and at the Gateway's controller",
    )
    HTTP_ROUTE_NOT_SERVED = (
        "HTTPRouteNotServed",
        "The cluster has no Gateway API.",
        "install it, or use `router: Replicas`",
    )
    ROUTE_MISSING = "RouteMissing", "The HTTPRoute does not exist yet.", "the events say why it could not be written"
    ROUTE_NOT_ACCEPTED = (
        "RouteNotAccepted",
        "The Gateway refuses the route, or another route has its host name and path; the message is the Gateway's.",
        "check `parentRefs`, `hostnames` and the listener's `allowedRoutes`; `kubectl get httproutes -A` lists all",
    )
    ROUTE_NOT_RESOLVED = (
        "RouteNotResolved",
        "The Gateway accepts the route and cannot find what it refers to; the message is the Gateway's.",
        "check that the Services exist and that no policy forbids the reference",
    )
    ROUTE_STATUS_ABSENT = (
        "RouteStatusAbsent",
        "No controller has reported on the route yet.",
        "check that the Gateway of `parentRefs` exists and that its controller runs",
    )
    OBSERVED_GENERATION_OLD = (
        "ObservedGenerationOld",
        "The route was written and its controller has reported only on an older version of it.",
        "if it stays, look at the Gateway's controller",
    )

    # --- what a rollout waits for ---

    HOLD = "Hold", "The hold of this step is not over yet; `status.next.time` says when it is."
    ANALYSIS = "Analysis", "Not every gate passes yet; the message names those that do not."
    REPLICAS_STARTING = (
        "ReplicasStarting",
        "Pods of the canary are not available yet; nothing is wrong with them so far.",
    )
    REPLICAS_LATE = (
        "ReplicasLate",
        "Pods were not available within `rollback.readyDeadlineSeconds`, and nothing that is known keeps them away.",
        "the message has what the first of them waits for; `kubectl describe pod`",
    )
    EARLIER_PODS = "EarlierPods", "Pods of an earlier try of the same revision have to end first."
    OTHER_PODS = "OtherPods", "Pods of a third revision have to end first: the clients' Service would select them too."
    ONLY_COPY = (
        "OnlyCopy",
        "The canary is the only revision that can answer, so it keeps its weight.",
        "scale up or fix the stable revision",
    )
    SWITCH_PENDING = "SwitchPending", "The Services do not select the promoted revision yet; this takes seconds."
    STILL_ANSWERING = (
        "StillAnswering",
        "A revision without weight still answers requests.",
        "look for clients that bypass the router, and for long keep-alive connections",
    )
    DRAINING = "Draining", "Requests in flight have `rollback.drainSeconds` to end before pods are removed."
    REJECTED = (
        "Rejected",
        "The spec asks for a revision that was rolled back; it is not tried again by itself.",
        (
            "apply a fixed spec; or order another try: "
            "`kubectl annotate pinnservice NAME pinn.dev/retry=1 --overwrite` (any new value is a new order)"
        ),
    )
    RETRIED = "Retried", "The order `pinn.dev/retry` was executed: the revision is tried again."
    NOTHING_TO_RETRY = (
        "NothingToRetry",
        "The order `pinn.dev/retry` found no rejected revision and no pause to end; it is spent.",
        "the message says what the rollout waits for; give a new value when there is something to retry",
    )

    # --- a rollout is suspended: what keeps replicas away and is not the revision's fault ---

    SUSPENDED = (
        "Suspended",
        "Something other than the revision stops the rollout; traffic is safe, and the step restarts once it is over.",
        "the message says what it is and until when it is tried again",
    )
    RESUMING = "Resuming", "A suspended rollout goes on after a short pause."
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "A quota of the namespace forbids more pods.",
        "raise the quota or lower `replicas`",
    )
    PODS_NOT_CREATED = (
        "PodsNotCreated",
        "The API server refuses the pods; the message has its words.",
        "look for admission webhooks and Pod Security",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node takes the pod; the message has the scheduler's words.",
        "add nodes, or lower `resources.requests`, `nodeSelector` or `tolerations`",
    )
    SCHEDULING_GATED = (
        "SchedulingGated",
        "A scheduling gate holds the pod back; the message names it.",
        "ask whoever set it, a queue such as Kueue for example; the rollout goes on by itself",
    )
    CONFIGURATION_MISSING = (
        "ConfigurationMissing",
        "A Secret, a ConfigMap or a key of one that the pod needs does not exist.",
        "create what the message names; the rollout goes on by itself",
    )
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "The registry did not answer, limits the rate, or refused the credentials or the image's signature.",
        "fix `imagePullSecrets` or the registry; the rollout goes on by itself",
    )
    CONTAINER_NOT_CREATED = (
        "ContainerNotCreated",
        (
            "The container cannot be started, because of a volume, its runtime or an init container that was injected; "
            "the message has the kubelet's words."
        ),
        "fix what it names; the rollout goes on by itself",
    )
    POD_DISRUPTED = "PodDisrupted", "A pod is evicted, preempted or drained; another one starts."
    POD_DELETED = "PodDeleted", "Somebody deleted a pod; another one starts."
    NODE_NOT_REPORTING = "NodeNotReporting", "The node of a pod does not report.", "`kubectl get nodes`"
    SIDECAR_NOT_READY = (
        "SidecarNotReady",
        "The server is ready, and another container of its pod, injected by a mesh for example, is not.",
        "the message names it; `kubectl logs POD -c CONTAINER`",
    )
    READINESS_GATE_NOT_PASSED = (
        "ReadinessGateNotPassed",
        "The server is ready, and a readiness gate of its pod, set by a load balancer for example, is not passed.",
        "the message names it; look at the controller that sets it",
    )
    NODE_RESTARTED = "NodeRestarted", "The node or its kubelet restarted the container."
    STABLE_UNAVAILABLE = (
        "StableUnavailable",
        "No pod of the stable revision can answer, so the canary gets the traffic if it can.",
        "look at the stable pods",
    )
    STABLE_IS_BACK = "StableIsBack", "The stable revision answers again, so the canary goes back to its step."
    STANDS_IN = (
        "StandsIn",
        "The spec asks for a third revision and the stable one cannot answer: the canary serves in its place.",
    )
    WEIGHTS_APPROXIMATE = (
        "WeightsApproximate",
        "Without a router the ratio of replicas is the weight, and so few replicas cannot give every weight.",
        "use more replicas, other steps, or a router",
    )
    TRAFFIC_NOT_ARRIVING = (
        "TrafficNotArriving",
        (
            "By its weight the canary should have answered many requests, and its pods answered none: they are cut off "
            "from the router, or never answer, or next to all clients use the Service of the resource, which leads to "
            "stable alone, and not the route."
        ),
        (
            "look at the canary's NetworkPolicies, its port, and the mesh's TLS; ask one of its pods directly; let the "
            "clients use the route, or set `traffic.router: Replicas`"
        ),
    )
    CONNECTIONS_KEPT = (
        "ConnectionsKept",
        (
            "Without a router, connections are divided, not requests: clients keep those that they have to stable's "
            "pods, and the canary gets no requests."
        ),
        "restart the clients, limit how long they keep a connection, or use a router",
    )
    FAULT_UPSTREAM = (
        "FaultUpstream",
        (
            "The canary failed clients or was slow, and pods of the stable revision, asked at that moment, were no "
            "better, or nobody failed any more: it is not held against the canary."
        ),
        "look at what both revisions need: a database, the network",
    )
    SUSPENDED_TOO_OFTEN = (
        "SuspendedTooOften",
        "The rollout was suspended more than five times at one step, and is not tried again by itself.",
        "fix what the message names, then `kubectl annotate pinnservice NAME --overwrite pinn.dev/retry=ID`",
    )
    SERVICES_PENDING = "ServicesPending", "The Services do not select their revisions yet."
    OBSERVED_GENERATION_ABSENT = (
        "ObservedGenerationAbsent",
        "The route's controller does not say which version of the route its report is about.",
        "use a controller that sets `observedGeneration`, as the Gateway API demands, or `router: Replicas`",
    )

    # --- prices ---

    PRICES_BEING_COMPARED = "PricesBeingCompared", "The canary's prices are compared before it gets weight."
    PRICES_VERIFIED = "PricesVerified", "The canary's prices were compared and are within the tolerance."
    PRICES_MATCH = "PricesMatch", "The prices of both revisions agree within the tolerance."
    PRICES_CONSISTENT = (
        "PricesConsistent",
        "The revision's prices obey the no-arbitrage rules; there is no other revision that they can be compared with.",
    )
    PRICES_DIFFER = (
        "PricesDiffer",
        "The canary prices differently from stable, beyond the tolerance and both revisions' error bounds.",
        (
            "`status.verification.worst` has the worst cells; if the difference is intended, set "
            "`spec.verification.acknowledgedRevision` to this revision"
        ),
    )
    PRICES_ARBITRAGE = (
        "PricesArbitrage",
        "The canary's prices break a no-arbitrage rule (bounds, parity, monotonicity, convexity).",
        "`status.verification.worst` names rule and inputs; fix the model",
    )
    PRICES_NOT_FINITE = "PricesNotFinite", "The canary answered with NaN, infinity or no number.", "fix the model"
    PRICES_NOT_REPRODUCIBLE = (
        "PricesNotReproducible",
        "The same request was answered with different prices.",
        "look at its cache and its random numbers",
    )
    PODS_DIFFER = "PodsDiffer", "Pods of the same revision answer differently.", "look for pods with other weights"
    PRICES_FALL_BACK = (
        "PricesFallBack",
        "The canary prices many options by its fallback that stable's model prices itself.",
        "fix the model; if it is intended, set `spec.verification.acknowledgedRevision` to this revision",
    )
    PRICE_ERRORS = (
        "PriceErrors",
        "Asked for prices twice, the canary's pods answered with errors or not at all, and stable's did not.",
        "see its pods' log",
    )
    PRICES_SLOW = "PricesSlow", "The canary answered requests for prices much more slowly than stable, twice."
    PRICE_API_MISSING = (
        "PriceApiMissing",
        "Stable can be asked for prices and the canary cannot.",
        "fix the server; if it is intended, set `spec.verification.acknowledgedRevision` to this revision",
    )
    NO_PRICE_API = (
        "NoPriceApi",
        "The server has neither `/v1/price` nor the Open Inference Protocol, so its prices cannot be compared.",
        "nothing with `verification.mode: Auto`; with `Required` the rollout holds",
    )
    VERIFICATION_NOT_APPLICABLE = (
        "VerificationNotApplicable",
        "The server cannot be asked for prices; it is not verified.",
    )
    VERIFICATION_UNAVAILABLE = (
        "VerificationUnavailable",
        "The pods could not be asked for prices; it is tried again and is not the revision's fault.",
        "check that the operator may reach the pods' port (NetworkPolicy)",
    )
    NEW_POD_UNVERIFIED = "NewPodUnverified", "A pod of the canary is new; its prices are compared first."
    PRICE_DIFFERENCE_ACKNOWLEDGED = (
        "PriceDifferenceAcknowledged",
        "The prices differ and `spec.verification.acknowledgedRevision` names this revision, so it goes on.",
    )

    # --- events of the operator itself ---

    ACTION_FAILED = (
        "ActionFailed",
        "An object could not be written; the message has the API server's answer.",
        "fix what it names (a quota, a right, an admission webhook); it is tried again",
    )
    NAME_TAKEN = (
        "NameTaken",
        "An object of that name exists and belongs to something else, so it is not touched.",
        "rename one of the two, or delete it if nobody needs it",
    )


_COMPOSED = (Reason.ABOVE_STABLE, Reason.OUT_OF_BOUNDS)
"""What gates are rejected for: the reason in a status is the gate's name and this."""


def explained(reason: str) -> Reason | None:
    """The entry of a reason as it is found in a status; None if it is not one of the operator's.

    >>> explained("LatencyP95AboveStable").value
    'AboveStable'
    """
    exact = next((entry for entry in Reason if entry == reason), None)
    return exact or next((entry for entry in _COMPOSED if reason.endswith(entry)), None)
