# A revision that can be bad: the inference image (BASE) with faulty.py as its program.
ARG BASE
FROM ${BASE}
COPY faulty.py /opt/faulty/faulty.py
ENTRYPOINT ["python3", "/opt/faulty/faulty.py"]
CMD []
