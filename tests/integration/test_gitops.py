"""Every overlay is built by kubectl and looked at object by object, as a cluster would before it takes them."""

import functools
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from infra.cost.prices import load_prices
from infra.observability.files import FOLDER as OBSERVABILITY
from infra.observability.prices import price_rules
from serving.regions.places.topology import load_topology
from serving.settings import Settings
from tests.fakes import kustomize

pytestmark = pytest.mark.skipif(bool(kustomize.why_not()), reason=kustomize.why_not())
ROOT = OBSERVABILITY.parent / "gitops"
REGIONS = ("us-east", "eu-west", "asia-pacific", "gcp-europe-west", "azure-west-europe")
FOLDERS = (*(f"overlays/{region}" for region in REGIONS), "overlays/global", "argocd")
KUBERNETES = "1.33"
OUTSIDE = {"flightpath-public", "flightpath-federation"}
"""Secrets of Istio's own namespace: the certificates of the ingress."""
Object = dict[str, Any]


def build(folder: str) -> tuple[Object, ...]:
    return kustomize.build(ROOT / folder)


@functools.cache
def schemas() -> dict[str, jsonschema.protocols.Validator]:
    documents = [yaml.safe_load(path.read_text()) for path in (ROOT / "schemas").glob("*.yaml")]
    found = {kind: schema for document in documents for kind, schema in document.items()}
    for schema in found.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    return {kind: jsonschema.Draft202012Validator(schema) for kind, schema in found.items()}


def named(obj: Object) -> str:
    return f"{obj['kind']} {obj['metadata'].get('namespace', '-')}/{obj['metadata']['name']}"


def workloads(objects: tuple[Object, ...]) -> Iterator[tuple[Object, Object]]:
    """Every object that makes pods, with its pod template."""
    for obj in objects:
        spec = obj.get("spec") or {}
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template") if isinstance(spec, dict) else None
        if obj["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "CronJob"):
            assert template
            yield obj, template


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_is_accepted(folder: str) -> None:
    """Built-in kinds by Kubernetes' own schemas; others by the small ones of infra/gitops/schemas."""
    for obj in build(folder):
        validate(json.dumps(obj))


@functools.cache
def validate(text: str) -> None:
    """Most objects are the same in every region: each is judged once."""
    obj = json.loads(text)
    custom = schemas().get(f"{obj['apiVersion']}/{obj['kind']}")
    if custom is None:
        kubernetes_validate.validate(obj, KUBERNETES, strict=True)
        return
    errors = [f"{named(obj)}: {error.json_path}: {error.message}" for error in custom.iter_errors(obj["spec"])]
    assert errors == []


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("StatefulSet", {"replicas": "two"}, "'two' is not of type 'integer'"),
        ("NetworkPolicy", {"podselector": {}}, "podselector"),
        ("VirtualService", {"timeout": "0s"}, "timeout"),
        ("ExternalSecret", {"target": {}}, "'name' is a required property"),
        ("PeerAuthentication", {"mtls": {"mode": "PERMISSIVE"}}, "'STRICT' was expected"),
    ],
)
def test_a_slip_is_noticed(kind: str, change: Object, complaint: str) -> None:
    obj = next(obj for obj in build("overlays/us-east/serving") if obj["kind"] == kind)
    with pytest.raises((AssertionError, kubernetes_validate.ValidationError), match=complaint):
        validate(json.dumps({**obj, "spec": {**obj["spec"], **change}}))


def test_an_unknown_kind_is_no_silent_success() -> None:
    unknown = {"apiVersion": "example.dev/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {}}
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        validate(json.dumps(unknown))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_object_is_there_twice_and_no_secret_is_in_the_repository(folder: str) -> None:
    names = [named(obj) for obj in build(folder)]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("Secret ")]


@pytest.mark.parametrize("region", ["us-east", "azure-west-europe"])
def test_the_parts_together_are_the_whole(region: str) -> None:
    """What Argo CD applies folder by folder is what the region's own folder builds."""
    parts = [obj for part in ("operator", "serving", "observability") for obj in build(f"overlays/{region}/{part}")]
    assert sorted(map(named, parts)) == sorted(map(named, build(f"overlays/{region}")))


@pytest.mark.parametrize("folder", FOLDERS[:-1])
def test_what_a_pod_mounts_or_reads_is_there(folder: str) -> None:
    objects = build(folder)
    there = {f"{obj['kind']} {obj['metadata'].get('namespace')}/{obj['metadata']['name']}" for obj in objects}
    made = {
        f"Secret {obj['metadata']['namespace']}/{obj['spec']['target']['name']}"
        for obj in objects
        if obj["kind"] == "ExternalSecret"
    }
    for obj, template in workloads(objects):
        namespace = obj["metadata"]["namespace"]
        wanted = {f"ServiceAccount {namespace}/{template['spec']['serviceAccountName']}"}
        wanted |= {f"{kind} {namespace}/{name}" for kind, name in references(template["spec"])}
        assert wanted - there - made == set(), named(obj)


def references(value: Any) -> Iterator[tuple[str, str]]:
    """ConfigMaps and Secrets that a pod names, wherever it does."""
    if isinstance(value, list):
        for entry in value:
            yield from references(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if key in ("configMap", "configMapRef", "configMapKeyRef"):
                yield "ConfigMap", entry["name"]
            elif key in ("secret", "secretRef", "secretKeyRef"):
                yield "Secret", entry.get("secretName") or entry["name"]
            else:
                yield from references(entry)


@pytest.mark.parametrize("folder", FOLDERS[:-1])
def test_pods_are_confined_probed_and_bounded(folder: str) -> None:
    """The namespace `observability-nodes` is the one exception, and only in what reaching into a node needs."""
    for obj, template in workloads(build(folder)):
        on_node = obj["metadata"]["namespace"] == "observability-nodes"
        pod = template["spec"].get("securityContext", {})
        assert on_node or (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"}), named(obj)
        for container in template["spec"]["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"]["drop"] == ["ALL"]
            assert on_node or own["allowPrivilegeEscalation"] is False
            assert on_node or "add" not in own["capabilities"]
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            assert obj["kind"] == "CronJob" or {"livenessProbe", "readinessProbe"} <= container.keys(), named(obj)
            assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+:[\w.-]+", container["image"]), container["image"]
        volumes = template["spec"].get("volumes", [])
        assert on_node or not [volume for volume in volumes if "hostPath" in volume]


@pytest.mark.parametrize("region", REGIONS)
def test_every_namespace_denies_by_default_and_the_meshed_ones_want_certificates(region: str) -> None:
    objects = build(f"overlays/{region}")
    namespaces = {obj["metadata"]["name"]: obj["metadata"]["labels"] for obj in objects if obj["kind"] == "Namespace"}
    assert namespaces.keys() == {"flightpath", "flightpath-system", "observability", "observability-nodes"}
    for name in namespaces.keys() - {"flightpath-system"}:
        (deny,) = (o for o in objects if named(o) == f"NetworkPolicy {name}/default-deny")
        assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    strict = {obj["metadata"]["namespace"] for obj in objects if obj["kind"] == "PeerAuthentication"}
    injected = {obj["metadata"]["namespace"] for obj, template in workloads(objects) if has_sidecar(obj, template)}
    assert strict == injected == {"flightpath", "observability"}
    privileged = {n for n, labels in namespaces.items() if labels["pod-security.kubernetes.io/enforce"] != "restricted"}
    assert privileged == {"observability-nodes"}


def has_sidecar(obj: Object, template: Object) -> bool:
    asked = template["metadata"]["labels"].get("sidecar.istio.io/inject")
    return asked == "true" if asked else obj["metadata"]["namespace"] == "flightpath"


@pytest.mark.parametrize("region", REGIONS)
def test_prometheus_finds_the_pods_that_it_looks_for(region: str) -> None:
    """Label and port name of each scrape job are those of a pod; model servers of the operator are its own tests'."""
    config = yaml.safe_load((OBSERVABILITY / "prometheus/region/region.yml").read_text())
    pods = [
        (template["metadata"]["labels"], {port["name"] for c in template["spec"]["containers"] for port in c["ports"]})
        for obj, template in workloads(build(f"overlays/{region}"))
        if obj["kind"] != "CronJob"
    ]
    looked_for = 0
    for job in config["scrape_configs"]:
        for discovery in job.get("kubernetes_sd_configs", []):
            for selector in discovery.get("selectors", []):
                key, _, value = selector["label"].partition("=")
                port = next(r["regex"] for r in job["relabel_configs"] if "port_name" in str(r.get("source_labels")))
                found = [labels for labels, ports in pods if labels.get(key) == value and port in ports]
                assert found or job["job_name"] == "engine", job["job_name"]
                looked_for += 1
    assert looked_for == 8


@pytest.mark.parametrize("region", REGIONS)
def test_every_selector_of_a_service_or_policy_chooses_a_pod(region: str) -> None:
    objects = build(f"overlays/{region}")
    pods = [(obj["metadata"]["namespace"], template["metadata"]["labels"]) for obj, template in workloads(objects)]
    for obj in objects:
        spec = obj.get("spec") or {}
        if obj["kind"] == "Service":
            selector = {k: v for k, v in spec["selector"].items() if k != "flightpath.dev/leader"}
        elif obj["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "AuthorizationPolicy"):
            chosen = spec.get("podSelector") or spec.get("selector") or {}
            selector = chosen.get("matchLabels", {})
        else:
            continue
        namespace = obj["metadata"]["namespace"]
        assert any(where == namespace and selector.items() <= labels.items() for where, labels in pods), named(obj)


def test_the_topology_is_one_that_agents_load_and_every_overlay_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIGHTPATH_TOPOLOGY", str(ROOT / "bases/serving/topology.yaml"))
    topology = load_topology(Settings())
    assert tuple(region.name for region in topology.regions) == REGIONS
    environments = {path.name for path in (OBSERVABILITY.parent / "environments").iterdir() if path.is_dir()}
    assert set(REGIONS) | {"global"} == environments == {path.name for path in (ROOT / "overlays").iterdir()}
    for region in topology.regions:
        objects = build(f"overlays/{region.name}/serving")
        (settings,) = (o["data"] for o in objects if o["kind"] == "ConfigMap" and "FLIGHTPATH_STORE" in o["data"])
        assert settings["FLIGHTPATH_REGISTRY_URL"] == region.registry_url
        assert settings["FLIGHTPATH_STORE"] == region.store_uri
        assert region.gateway_url == f"http://{settings['GATEWAY_HOST']}:8080"
        assert region.agent_url == f"http://{settings['AGENT_HOST']}:8081"
        (entry,) = (o for o in objects if o["kind"] == "ServiceEntry")
        assert {r.gateway_url.split("/")[2].split(":")[0] for r in topology.regions} <= set(entry["spec"]["hosts"])
        (pod,) = (template["spec"] for obj, template in workloads(objects) if obj["kind"] == "StatefulSet")
        assert pod["hostAliases"][0]["hostnames"] == [settings["GATEWAY_HOST"], settings["AGENT_HOST"]]


def test_commands_of_the_pods_are_modules_that_there_are() -> None:
    modules = {
        container["command"][2]
        for _, template in workloads(build("overlays/us-east/serving"))
        for container in template["spec"]["containers"]
    }
    assert modules == {"serving.gateway.app", "serving.regions.agent", "infra.recovery"}
    assert all(find_spec(module) for module in modules)


def test_argo_cd_names_folders_and_namespaces_that_exist() -> None:
    sets = [obj for obj in build("argocd") if obj["kind"] == "ApplicationSet"]
    (project,) = (obj for obj in build("argocd") if obj["kind"] == "AppProject")
    allowed = {destination["namespace"] for destination in project["spec"]["destinations"]}
    whitelist = {(entry["group"], entry["kind"]) for entry in project["spec"]["clusterResourceWhitelist"]}
    (regions,) = (obj for obj in sets if obj["metadata"]["name"] == "flightpath-regions")
    elements = regions["spec"]["generators"][0]["matrix"]["generators"][1]["list"]["elements"]
    for region in REGIONS:
        for element in elements:
            assert (ROOT / "overlays" / region / element["part"] / "kustomization.yaml").is_file()
    assert {element["namespace"] for element in elements} <= allowed
    steps = regions["spec"]["strategy"]["rollingSync"]["steps"]
    assert sorted(value for step in steps for value in step["matchExpressions"][0]["values"]) == sorted(REGIONS)
    for obj in build("overlays/us-east"):
        namespace = obj["metadata"].get("namespace")
        group = obj["apiVersion"].rpartition("/")[0]
        assert namespace in allowed or (group, obj["kind"]) in whitelist, named(obj)


@pytest.mark.parametrize("name", ["traces", "logs"])
def test_pipelines_of_the_collector_use_what_is_configured_and_nothing_idles(name: str) -> None:
    config = yaml.safe_load((OBSERVABILITY / f"collector/{name}.yml").read_text())
    for kind in ("receivers", "processors", "exporters"):
        used = {part for pipeline in config["service"]["pipelines"].values() for part in pipeline[kind]}
        assert used == config[kind].keys()
    assert set(config["service"]["extensions"]) == config["extensions"].keys()
    assert config["service"]["pipelines"][name]["processors"][0] == "memory_limiter"


@pytest.mark.parametrize("region", REGIONS)
def test_prices_of_an_overlay_are_those_of_the_example(region: str) -> None:
    folder = ROOT / "overlays" / region / "observability"
    rules = yaml.safe_load((folder / "prices.yml").read_text())
    found = re.search(r"infra\.observability prices ([\w-]+) ", (folder / "kustomization.yaml").read_text())
    assert found, "the command that writes them is told"
    budget = float(rules["groups"][0]["rules"][-1]["expr"].removeprefix("vector(").removesuffix(")"))
    main = (OBSERVABILITY.parent / "environments" / region / "main.tf").read_text()
    granted = re.search(r"budget_usd_monthly += (\d+)", main)
    assert granted is None or budget == float(granted[1]), "the budget of the cloud's own alarm"
    book = load_prices(OBSERVABILITY.parent.parent / "examples/infra/prices.json")
    assert rules == price_rules(book, found[1], budget_usd=budget)
