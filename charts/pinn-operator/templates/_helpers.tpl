{{- define "pinn-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters leave room for the suffixes of names that are made from it. */}}
{{- define "pinn-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pinn-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "pinn-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pinn-operator.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "pinn-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: pinn-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "pinn-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "pinn-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "pinn-operator.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{/* What the operator may do where PINNServices live. Nothing is granted by wildcard. */}}
{{- define "pinn-operator.rules" -}}
- apiGroups: [pinn.dev]
  resources: [pinnservices]
  verbs: [get, list, watch]
- apiGroups: [pinn.dev]
  resources: [pinnservices/status]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end }}

{{/* What the operator logs in with at its own Prometheus, as sources of a projected volume; empty if nothing. */}}
{{- define "pinn-operator.prometheusLogin" -}}
{{- with .Values.prometheus }}
{{- if .bearerTokenSecret.name }}
- secret:
    name: {{ .bearerTokenSecret.name }}
    items:
    - {key: {{ .bearerTokenSecret.key | quote }}, path: token}
{{- end }}
{{- if .basicAuthSecret.name }}
- secret:
    name: {{ .basicAuthSecret.name }}
    items:
    - {key: {{ .basicAuthSecret.usernameKey | quote }}, path: username}
    - {key: {{ .basicAuthSecret.passwordKey | quote }}, path: password}
{{- end }}
{{- range $index, $header := .headers }}
{{- with $header.secret }}
- secret:
    name: {{ .name }}
    items:
    - {key: {{ .key | quote }}, path: header-{{ $index }}}
{{- end }}
{{- end }}
{{- if .ca.name }}
- {{ ternary "secret" "configMap" (eq .ca.kind "Secret") }}:
    name: {{ .ca.name }}
    items:
    - {key: {{ .ca.key | quote }}, path: ca.crt}
{{- end }}
{{- end }}
{{- end }}
