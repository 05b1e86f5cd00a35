"""Rule no-public-endpoint: nothing answers the internet but what the policy says (`public_ports`).

API servers, databases, buckets and key stores are reached from inside, always; a port for users is a number in the
policy file, so that opening one is a reviewed line.
"""

import ipaddress
import json
from collections.abc import Iterator
from typing import Any, Final

from infra.planned import PlannedResource, PlannedWorld, Value
from infra.policy.findings import Breach, Must, broken, is_off, is_true, one_of, show, without_companion

RULE: Final = "no-public-endpoint"

_BLOCK: Final = "aws_s3_bucket_public_access_block"
_TABLE: Final = (
    Must(type="aws_eks_cluster", path="vpc_config.endpoint_public_access", accepts=is_off, expected="false"),
    Must(type="aws_db_instance", path="publicly_accessible", accepts=is_off, expected="false"),
    Must(type="aws_rds_cluster_instance", path="publicly_accessible", accepts=is_off, expected="false"),
    Must(type=_BLOCK, path="block_public_acls", accepts=is_true, expected="true"),
    Must(type=_BLOCK, path="block_public_policy", accepts=is_true, expected="true"),
    Must(type=_BLOCK, path="ignore_public_acls", accepts=is_true, expected="true"),
    Must(type=_BLOCK, path="restrict_public_buckets", accepts=is_true, expected="true"),
    Must(type="aws_s3_bucket_acl", path="acl", accepts=one_of("private", Value.MISSING), expected="private"),
    Must(type="aws_subnet", path="map_public_ip_on_launch", accepts=is_off, expected="false"),
    Must(type="aws_instance", path="associate_public_ip_address", accepts=is_off, expected="false"),
    Must(
        type="aws_launch_template",
        path="network_interfaces.associate_public_ip_address",
        accepts=is_off,
        expected="false",
    ),
    Must(type="aws_lb", path="internal", accepts=is_true, expected="true"),
    Must(
        type="google_container_cluster",
        path="private_cluster_config.enable_private_endpoint",
        accepts=is_true,
        expected="true",
    ),
    Must(
        type="google_container_cluster",
        path="private_cluster_config.enable_private_nodes",
        accepts=is_true,
        expected="true",
    ),
    Must(
        type="google_sql_database_instance",
        path="settings.ip_configuration.ipv4_enabled",
        accepts=one_of(False),
        expected="false",
    ),
    Must(
        type="google_storage_bucket",
        path="public_access_prevention",
        accepts=one_of("enforced"),
        expected="enforced",
    ),
    Must(
        type="google_compute_instance",
        path="network_interface.access_config",
        accepts=one_of(Value.MISSING),
        expected="no address of its own",
    ),
    Must(type="azurerm_kubernetes_cluster", path="private_cluster_enabled", accepts=is_true, expected="true"),
    Must(
        type="azurerm_postgresql_flexible_server",
        path="public_network_access_enabled",
        accepts=one_of(False),
        expected="false",
    ),
    Must(
        type="azurerm_storage_account",
        path="allow_nested_items_to_be_public",
        accepts=one_of(False),
        expected="false",
    ),
    Must(type="azurerm_storage_account", path="network_rules.default_action", accepts=one_of("Deny"), expected="Deny"),
    Must(type="azurerm_storage_container", path="container_access_type", accepts=one_of("private"), expected="private"),
    Must(type="azurerm_key_vault", path="network_acls.default_action", accepts=one_of("Deny"), expected="Deny"),
)
_POLICIES: Final = (
    "aws_s3_bucket_policy",
    "aws_sqs_queue_policy",
    "aws_sns_topic_policy",
    "aws_ecr_repository_policy",
    "aws_kms_key",
)
_EVERYBODY: Final = frozenset({"allUsers", "allAuthenticatedUsers"})
_WORLD_IPV4: Final = 8
"""No user of ours holds a public network of this size: whoever writes one means the internet."""
_WORLD_IPV6: Final = 16
_OURS_IPV6: Final = ipaddress.IPv6Network("fc00::/7")


def public_endpoints(world: PlannedWorld, public_ports: frozenset[int]) -> Iterator[Breach]:
    yield from broken(world, RULE, _TABLE)
    yield from without_companion(world, RULE, "aws_s3_bucket", _BLOCK, "bucket")
    for resource in world.staying:
        yield from _open_ports(resource, public_ports)
        if resource.type in _POLICIES:
            yield from _open_policy(resource)
        if "_iam_" in resource.type and resource.type.startswith("google_"):
            yield from _everybody(resource)
        if resource.type == "aws_ecrpublic_repository":
            yield _breach(resource, "a public registry", "aws_ecr_repository")


def is_world(source: Any) -> bool:
    """Whether a range, or a word of Azure for one, is the internet or a large part of it."""
    if source in ("*", "Internet", "Any"):
        return True
    try:
        network = ipaddress.ip_network(source, strict=False)
    except ValueError:
        return False
    if network.version == 4:
        return network.prefixlen < _WORLD_IPV4
    return network.prefixlen < _WORLD_IPV6 and not network.subnet_of(_OURS_IPV6)


def _open_ports(resource: PlannedResource, allowed: frozenset[int]) -> Iterator[Breach]:
    for sources, ports in _inbound(resource):
        opened = [source for source in sources if is_world(source)]
        if opened and not _all_allowed(ports, allowed):
            expected = f"ports {', '.join(map(str, sorted(allowed)))} alone" if allowed else "a range that is ours"
            yield _breach(resource, f"{opened[0]} to {_show_ports(ports)}", expected)


Ports = tuple[int, int] | None
"""First and last; None: all."""


def _inbound(resource: PlannedResource) -> Iterator[tuple[list[Any], Ports]]:
    """Who may come in, and where, of every kind of firewall rule."""
    match resource.type:
        case "aws_vpc_security_group_ingress_rule":
            yield [resource.one("cidr_ipv4"), resource.one("cidr_ipv6")], _range(resource.values)
        case "aws_security_group_rule" if resource.one("type") == "ingress":
            yield [*resource.read("cidr_blocks"), *resource.read("ipv6_cidr_blocks")], _range(resource.values)
        case "aws_security_group" | "aws_default_security_group":
            for rule in resource.values.get("ingress") or ():
                yield [*(rule.get("cidr_blocks") or ()), *(rule.get("ipv6_cidr_blocks") or ())], _range(rule)
        case "google_compute_firewall" if resource.one("direction", "INGRESS") == "INGRESS":
            for allow in resource.values.get("allow") or ():
                for port in allow.get("ports") or (None,):
                    yield resource.read("source_ranges"), _written(port)
        case "azurerm_network_security_group":
            for rule in resource.values.get("security_rule") or ():
                yield from _azure_rule(rule)
        case "azurerm_network_security_rule":
            yield from _azure_rule(resource.values)


def _azure_rule(rule: Any) -> Iterator[tuple[list[Any], Ports]]:
    if rule.get("access") == "Allow" and rule.get("direction") == "Inbound":
        sources = [rule.get("source_address_prefix"), *(rule.get("source_address_prefixes") or ())]
        for port in (rule.get("destination_port_range"), *(rule.get("destination_port_ranges") or ())):
            if port:
                yield sources, _written(port)


def _range(rule: Any) -> Ports:
    first, last = rule.get("from_port"), rule.get("to_port")
    protocol = str(rule.get("ip_protocol") or rule.get("protocol") or "")
    return None if first is None or last is None or protocol == "-1" else (int(first), int(last))


def _written(port: Any) -> Ports:
    if port in (None, "*"):
        return None
    first, _, last = str(port).partition("-")
    return int(first), int(last or first)


def _all_allowed(ports: Ports, allowed: frozenset[int]) -> bool:
    return ports is not None and ports[1] - ports[0] < len(allowed) and set(range(ports[0], ports[1] + 1)) <= allowed


def _show_ports(ports: Ports) -> str:
    if ports is None:
        return "every port"
    return f"port {ports[0]}" if ports[0] == ports[1] else f"ports {ports[0]}-{ports[1]}"


def _open_policy(resource: PlannedResource) -> Iterator[Breach]:
    """Only a document that the plan knows can be judged; with a condition it is not everybody's."""
    text = resource.one("policy")
    if not isinstance(text, str):
        return
    statements = json.loads(text).get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal")
        named = principal.get("AWS") if isinstance(principal, dict) else principal
        open_to_all = named == "*" or (isinstance(named, list) and "*" in named)
        if statement.get("Effect") == "Allow" and open_to_all and not statement.get("Condition"):
            yield _breach(resource, f"principal * in {show(statement.get('Sid', 'a statement'))}", "named principals")


def _everybody(resource: PlannedResource) -> Iterator[Breach]:
    members = {*resource.read("member"), *resource.read("members")} & _EVERYBODY
    if members:
        yield _breach(resource, ", ".join(sorted(members)), "named members")


def _breach(resource: PlannedResource, got: str, expected: str) -> Breach:
    return Breach(resource=resource.address, rule=RULE, got=got, expected=expected)
