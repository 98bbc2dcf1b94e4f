#!/usr/bin/env python3
"""The Helm chart, read and rendered by Helm's own library, and what it renders checked against Kubernetes' schemas.
Needs helm-python-sdk, kubernetes-validate and PyYAML. usage: tests/chart.py CHART
"""
import sys

import helm_python as helm
import kubernetes_validate
import yaml

# A version whose APIs are still those of today, and the oldest one that its makers still mend.
VERSIONS = ["1.31", "1.34"]
STATELESS = {"persistence": {"enabled": False}, "replicas": 3}
# Each combination of values that changes what is rendered, and the kinds that it has in addition to the usual ones.
COMBINATIONS = [
    ({}, {"PersistentVolumeClaim"}),
    (STATELESS, set()),
    (
        STATELESS
        | {"autoscaling": {"enabled": True}, "tlsSecret": "tls", "ingress": {"enabled": True, "tlsSecret": "web"}}
        | {"prometheus": {"enabled": True}, "auth": {"username": "me"}, "podAnnotations": {"a": "b"}}
        | {"imagePullSecrets": [{"name": "pull"}], "nodeSelector": {"disk": "ssd"}},
        {"HorizontalPodAutoscaler", "Ingress", "ServiceMonitor"},
    ),
]
USUAL = {"ConfigMap", "Deployment", "PodDisruptionBudget", "Service"}
# Of the Prometheus operator, whose schemas are not Kubernetes'.
FOREIGN = {"ServiceMonitor"}


def rendered(chart, values):
    """The documents that the chart makes of these values."""
    with helm.Chart.load(chart) as loaded:
        files = loaded.render(values, name="push", namespace="push")
    texts = (text for name, text in files.items() if name.endswith(".yaml"))
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


def check(documents):
    for document in documents:
        if document["kind"] in FOREIGN:
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}, mounted


def main(chart):
    messages = helm.lint(chart)["messages"]
    # 1 is a hint.
    assert all(message["severity"] <= 1 for message in messages), messages
    for values, more in COMBINATIONS:
        documents = rendered(chart, values)
        kinds = {document["kind"] for document in documents}
        assert kinds == USUAL | more, kinds
        check(documents)
    try:
        rendered(chart, {"replicas": 3})
        raise AssertionError("two servers would share a directory")
    except helm.HelmError as refusal:
        assert "one server at a time" in str(refusal), refusal


main(sys.argv[1])
