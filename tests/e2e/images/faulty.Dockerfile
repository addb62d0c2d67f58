# A revision that can be bad: the inference image with tests/e2e/images/faulty.py as its program.
ARG INFERENCE
FROM ${INFERENCE}
COPY faulty.py /opt/faulty/faulty.py
ENTRYPOINT ["python", "/opt/faulty/faulty.py"]
CMD []
