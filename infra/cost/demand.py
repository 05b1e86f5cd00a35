"""What a plan will be charged for: units a month of something that has a price, at least and at most.

Node groups grow and shrink between a least and a most, so each demand has both; a budget that looks at one of them only
is either never met or never kept.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from infra.cost.errors import CostError
from infra.cost.prices import HOURS_A_MONTH, Kind
from infra.planned import PlannedResource, PlannedWorld
from serving.errors import InvalidInput

_IN_TWO_ZONES: Final = 2


class UnknownRegion(CostError, InvalidInput):
    code = "cost_region"


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    address: str
    kind: Kind
    item: str
    region: str
    least: float
    """Units a month: hours, or GB a month."""
    most: float
    spot: bool = False


def demands_of(world: PlannedWorld) -> tuple[Demand, ...]:
    """Everything with an hourly price or a size in the plan."""
    return tuple(
        demand
        for resource in world.staying
        if (read := _READERS.get(resource.type)) is not None
        for demand in read(resource, world)
    )


Reader = Callable[[PlannedResource, PlannedWorld], Iterator[Demand]]


def _aws_region(resource: PlannedResource, world: PlannedWorld) -> str:
    found = resource.one("region") or world.provider_regions.get("aws")
    if found is None:
        told = "a region, or a provider with one"
        raise UnknownRegion(f"the region of {resource.address} is not known", got="none in the plan", expected=told)
    return str(found)


def _hours(
    resource: PlannedResource, kind: Kind, item: str, region: str, *, least: float = 1, most: float = 1, spot: bool
) -> Demand:
    return Demand(
        address=resource.address,
        kind=kind,
        item=item,
        region=region,
        least=least * HOURS_A_MONTH,
        most=most * HOURS_A_MONTH,
        spot=spot,
    )


def _one(kind: Kind, item: str) -> Reader:
    """One part of AWS that costs by the hour."""

    def read(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
        yield _hours(resource, kind, item, _aws_region(resource, world), spot=False)

    return read


def _here(kind: Kind, item: str, place: str) -> Reader:
    """One part of a cloud whose resources tell their region themselves."""

    def read(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
        yield _hours(resource, kind, item, _place(resource, world, place), spot=False)

    return read


def _place(resource: PlannedResource, world: PlannedWorld, *attributes: str) -> str:
    """A zone of Google counts as its region."""
    found = next((value for name in attributes if (value := resource.one(name))), None)
    found = found or _place_of_cluster(resource, world)
    if found is None:
        raise UnknownRegion(f"the region of {resource.address} is not known", got="none in the plan", expected="one")
    parts = str(found).split("-")
    return "-".join(parts[:2]) if len(parts) == 3 and len(parts[2]) == 1 else str(found)


def _place_of_cluster(resource: PlannedResource, world: PlannedWorld) -> object:
    """Node pools of Azure have no region of their own."""
    clusters = world.of_type("azurerm_kubernetes_cluster", "google_container_cluster")
    return next((cluster.one("location") for cluster in clusters if cluster.module == resource.module), None)


def _eks_group(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _aws_region(resource, world)
    least, most = resource.one("scaling_config.min_size", 0), resource.one("scaling_config.max_size", 0)
    spot = resource.one("capacity_type") == "SPOT"
    item = resource.one("instance_types", "unknown")
    yield _hours(resource, "instance", item, place, least=least, most=most, spot=spot)
    size, disk = _root_volume(resource, world)
    yield _gb(resource, "disk", disk, place, least * size, most * size)


def _root_volume(group: PlannedResource, world: PlannedWorld) -> tuple[float, str]:
    """Of the launch template with the group's own key; without one EKS makes 20 GB of gp3."""
    key = group.address.removeprefix(group.module).partition("[")[2]
    for template in world.of_type("aws_launch_template"):
        same_key = template.address.removeprefix(template.module).partition("[")[2] == key
        size = template.one("block_device_mappings.ebs.volume_size")
        if template.module == group.module and same_key and size:
            return size, template.one("block_device_mappings.ebs.volume_type", "gp3")
    return group.one("disk_size", 20), "gp3"


def _ec2(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _aws_region(resource, world)
    yield _hours(resource, "instance", resource.one("instance_type", "unknown"), place, spot=False)


def _rds(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    """One that follows another has its source's size, which its plan does not tell: its most counts for both."""
    place = _aws_region(resource, world)
    copies = _IN_TWO_ZONES if resource.one("multi_az") else 1
    size = resource.one("instance_class", "unknown")
    yield _hours(resource, "database", size, place, least=copies, most=copies, spot=False)
    most = resource.one("max_allocated_storage") or resource.one("allocated_storage", 0)
    least = resource.one("allocated_storage", most)
    disk = resource.one("storage_type", "gp3")
    yield _gb(resource, "database_disk", disk, place, copies * least, copies * max(least, most))


def _interface_endpoint(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    if resource.one("vpc_endpoint_type") == "Interface":
        zones = max(1, len(resource.read("subnet_ids")))
        place = _aws_region(resource, world)
        yield _hours(resource, "network", "interface_endpoint", place, least=zones, most=zones, spot=False)


def _gke_pool(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _place(resource, world, "location")
    least = resource.one("autoscaling.total_min_node_count", resource.one("node_count", 0))
    most = resource.one("autoscaling.total_max_node_count", least)
    spot = bool(resource.one("node_config.spot"))
    item = resource.one("node_config.machine_type", "unknown")
    yield _hours(resource, "instance", item, place, least=least, most=most, spot=spot)
    size = resource.one("node_config.disk_size_gb", 100)
    yield _gb(resource, "disk", resource.one("node_config.disk_type", "pd-balanced"), place, least * size, most * size)


def _cloud_sql(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _place(resource, world, "region")
    copies = _IN_TWO_ZONES if resource.one("settings.availability_type") == "REGIONAL" else 1
    tier = resource.one("settings.tier", "unknown")
    yield _hours(resource, "database", tier, place, least=copies, most=copies, spot=False)
    size = copies * resource.one("settings.disk_size", 10)
    yield _gb(resource, "database_disk", resource.one("settings.disk_type", "PD_SSD"), place, size, size)


def _aks(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _place(resource, world, "location")
    yield _hours(resource, "control_plane", "aks", place, spot=False)
    yield from _aks_nodes(resource, place, "default_node_pool.")


def _aks_pool(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    yield from _aks_nodes(resource, _place(resource, world, "location"), "")


def _aks_nodes(resource: PlannedResource, place: str, prefix: str) -> Iterator[Demand]:
    least = resource.one(f"{prefix}min_count", resource.one(f"{prefix}node_count", 0))
    most = resource.one(f"{prefix}max_count", least)
    spot = resource.one(f"{prefix}priority") == "Spot"
    item = resource.one(f"{prefix}vm_size", "unknown")
    yield _hours(resource, "instance", item, place, least=least, most=most, spot=spot)
    size = resource.one(f"{prefix}os_disk_size_gb", 128)
    yield _gb(resource, "disk", "Premium_LRS", place, least * size, most * size)


def _azure_postgres(resource: PlannedResource, world: PlannedWorld) -> Iterator[Demand]:
    place = _place(resource, world, "location")
    copies = _IN_TWO_ZONES if resource.one("high_availability.mode") else 1
    sku = resource.one("sku_name", "unknown")
    yield _hours(resource, "database", sku, place, least=copies, most=copies, spot=False)
    size = copies * resource.one("storage_mb", 32768) / 1024
    yield _gb(resource, "database_disk", "premium", place, size, size)


def _gb(resource: PlannedResource, kind: Kind, item: str, region: str, least: float, most: float) -> Demand:
    return Demand(address=resource.address, kind=kind, item=item, region=region, least=least, most=most)


_READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "aws_eks_cluster": _one("control_plane", "eks"),
        "aws_eks_node_group": _eks_group,
        "aws_instance": _ec2,
        "aws_db_instance": _rds,
        "aws_nat_gateway": _one("network", "nat_gateway"),
        "aws_lb": _one("network", "load_balancer"),
        "aws_vpc_endpoint": _interface_endpoint,
        "google_container_cluster": _here("control_plane", "gke", "location"),
        "google_container_node_pool": _gke_pool,
        "google_sql_database_instance": _cloud_sql,
        "google_compute_router_nat": _here("network", "nat_gateway", "region"),
        "azurerm_kubernetes_cluster": _aks,
        "azurerm_kubernetes_cluster_node_pool": _aks_pool,
        "azurerm_postgresql_flexible_server": _azure_postgres,
        "azurerm_nat_gateway": _here("network", "nat_gateway", "location"),
    }
)
