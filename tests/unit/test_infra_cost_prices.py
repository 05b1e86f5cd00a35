"""Price files: our own form and the clouds' exports, in the forms that their documentation describes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.cost.errors import InvalidPrices, UnknownPrice
from infra.cost.exports import from_csv, from_json
from infra.cost.prices import PriceBook, load_prices
from infra.cost.rows import Price
from infra.machines import MACHINES, UnknownMachine, gpus, machine

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = load_prices(ROOT / "examples" / "infra" / "prices.json")


def own(**more: Any) -> dict[str, Any]:
    row = {"kind": "instance", "item": "m7i.large", "region": "us-east-1", "usd": 0.1}
    return {"schema_version": 1, "date": "2026-11-01", "prices": [row], **more}


def load(tmp_path: Path, content: object) -> PriceBook:
    path = tmp_path / "prices"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_prices(path)


def test_the_example_says_that_it_is_one_and_of_which_day() -> None:
    assert "example" in EXAMPLE.note.lower()
    assert EXAMPLE.day.isoformat() == "2026-11-01"
    assert EXAMPLE.hourly_usd("p4d.24xlarge", "us-east-1") > EXAMPLE.hourly_usd("p4d.24xlarge", "us-east-1", spot=True)


def test_every_priced_machine_has_a_known_number_of_gpus() -> None:
    for price in EXAMPLE.instances():
        assert gpus(price.item) == machine(price.item).gpus


def test_a_price_that_is_missing_is_an_error_that_names_what_there_is() -> None:
    with pytest.raises(
        UnknownPrice, match=r"no price for instance p4d\.24xlarge, got region mars-1, expected one of .*us-east-1"
    ):
        EXAMPLE.hourly_usd("p4d.24xlarge", "mars-1")
    with pytest.raises(UnknownPrice, match="no spot price for instance warp"):
        EXAMPLE.hourly_usd("warp.9xlarge", "us-east-1", spot=True)
    with pytest.raises(UnknownPrice, match="no price for data transfer from mars-1"):
        EXAMPLE.transfer_usd("mars-1", "us-east-1")


def test_a_pairs_own_price_goes_before_the_general_one(tmp_path: Path) -> None:
    rows = [{"kind": "transfer", "item": item, "region": "a", "usd": usd} for item, usd in (("*", 0.2), ("b", 0.1))]
    book = load(tmp_path, own(prices=rows))
    assert (book.transfer_usd("a", "b"), book.transfer_usd("a", "c")) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "of no known form"),
        ("{", "is no JSON"),
        ({"rows": []}, "of no known form"),
        (own(schema_version=9), "schema_version is not known, got 9"),
        (own(currency="EUR"), "currency is wrong, got EUR"),
        (own(date="soon"), "no date"),
        (own(prices=[]), "there are no prices"),
        (own(prices=[3]), "price 0 is wrong"),
        (own(prices=[{"kind": "instance", "item": "x", "region": "y"}]), "price 0 lacks fields"),
        (own(prices=[{"kind": "ship", "item": "x", "region": "y", "usd": 1}]), "unknown kind, got ship"),
        (own(prices=[{"kind": "disk", "item": "x", "region": "y", "usd": -1}]), "got -1"),
        (own(prices=[{"kind": "disk", "item": "x", "region": "y", "usd": "1"}]), "got 1"),
        (own(prices=[{"kind": "disk", "item": "", "region": "y", "usd": 1}]), "item is wrong"),
        (own(prices=[{"kind": "disk", "item": "x", "region": "y", "usd": 1, "eur": 1}]), "unknown fields"),
        (own(prices=[{"kind": "disk", "item": "x", "region": "y", "usd": u} for u in (1, 2)]), "two prices for disk x"),
        ("kind,item,region,usd\ndisk,x,y,cheap\n", "usd of row 0 is wrong"),
        ("kind,item,region,usd,spot\ndisk,x,y,1,maybe\n", "spot of"),
        ("a,b\n1,2\n", "of no known form"),
    ],
)
def test_a_file_that_is_wrong_is_refused(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(InvalidPrices, match=told):
        load(tmp_path, content)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidPrices, match="cannot be read"):
        load_prices(tmp_path / "nowhere.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidPrices, match="expected UTF-8"):
        load_prices(tmp_path / "binary")


@settings(deadline=None)
@given(st.floats(allow_nan=True), st.booleans())
def test_a_price_is_a_number_from_zero_or_refused(usd: float, spot: bool) -> None:
    good = 0 <= usd < float("inf")
    try:
        price = Price(kind="instance", item="a", region="b", usd=usd, spot=spot)
    except InvalidPrices:
        assert not good
    else:
        assert good
        assert PriceBook.of([price], day=EXAMPLE.day).hourly_usd("a", "b", spot) == usd


# Exports

LINUX = {
    "instanceType": "p5.48xlarge",
    "regionCode": "us-east-1",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def offer(attributes: dict[str, str], family: str, *tiers: tuple[str, str]) -> dict[str, Any]:
    dimensions = {str(n): {"beginRange": begin, "pricePerUnit": {"USD": usd}} for n, (begin, usd) in enumerate(tiers)}
    return {
        "products": {"S": {"sku": "S", "productFamily": family, "attributes": attributes}},
        "terms": {"OnDemand": {"S": {"S.O": {"priceDimensions": dimensions}}}},
    }


@pytest.mark.parametrize(
    ("attributes", "family", "tiers", "expected"),
    [
        (LINUX, "Compute Instance", [("0", "55.04")], ("instance", "p5.48xlarge", 55.04)),
        (
            {
                "instanceType": "db.m7g.large",
                "regionCode": "us-east-1",
                "databaseEngine": "PostgreSQL",
                "deploymentOption": "Single-AZ",
            },
            "Database Instance",
            [("0", "0.168")],
            ("database", "db.m7g.large", 0.168),
        ),
        ({"regionCode": "us-east-1", "volumeApiName": "gp3"}, "Storage", [("0", "0.08")], ("disk", "gp3", 0.08)),
        (
            {"regionCode": "us-east-1", "storageClass": "General Purpose"},
            "Storage",
            [("51200", "0.022"), ("0", "0.023")],
            ("storage", "s3", 0.023),
        ),
        (
            {"fromRegionCode": "us-east-1", "toRegionCode": "eu-west-1", "transferType": "InterRegion Outbound"},
            "Data Transfer",
            [("0", "0"), ("1", "0.02")],
            ("transfer", "eu-west-1", 0.02),
        ),
        (
            {"fromRegionCode": "us-east-1", "transferType": "AWS Outbound"},
            "Data Transfer",
            [("0", "0.09")],
            ("transfer", "internet", 0.09),
        ),
    ],
)
def test_an_offer_file_of_aws(attributes: dict[str, str], family: str, tiers: Any, expected: Any) -> None:
    (price,) = from_json(offer(attributes, family, *tiers))
    assert (price.kind, price.item, price.usd) == expected
    assert price.region == "us-east-1"


@pytest.mark.parametrize(
    "change",
    [
        {"operatingSystem": "Windows"},
        {"tenancy": "Dedicated"},
        {"preInstalledSw": "SQL Std"},
        {"capacitystatus": "UnusedCapacityReservation"},
    ],
)
def test_other_systems_tenancies_and_reservations_are_no_price_of_ours(change: dict[str, str]) -> None:
    with pytest.raises(InvalidPrices, match="no price that is used here"):
        from_json(offer({**LINUX, **change}, "Compute Instance", ("0", "9.9")))


def test_an_offer_file_as_csv_has_lines_about_itself_first() -> None:
    head = "SKU,TermType,PricePerUnit,Currency,StartingRange,Product Family,Instance Type,Operating System,Tenancy,"
    head += "Pre Installed S/W,CapacityStatus,Region Code"
    row = "OnDemand,55.04,USD,0,Compute Instance,p5.48xlarge,Linux,Shared,NA,Used,us-east-1"
    reserved = row.replace("OnDemand", "Reserved").replace("55.04", "20")
    text = f'"FormatVersion","v1.0"\n"Disclaimer","none"\n{head}\nS,{row}\nT,{reserved}\n'
    assert [(price.item, price.usd) for price in from_csv(text)] == [("p5.48xlarge", 55.04)]


def test_spot_is_the_newest_price_of_the_dearest_zone() -> None:
    def row(zone: str, usd: str, at: str, product: str = "Linux/UNIX") -> dict[str, str]:
        common = {"InstanceType": "g6.xlarge", "ProductDescription": product}
        return {**common, "AvailabilityZone": zone, "SpotPrice": usd, "Timestamp": at}

    rows = [
        row("us-east-1a", "0.9", "2026-11-01T00:00:00Z"),
        row("us-east-1a", "0.3", "2026-11-02T00:00:00Z"),
        row("us-east-1b", "0.4", "2026-11-02T00:00:00Z"),
        row("us-east-1c", "5.0", "2026-11-02T00:00:00Z", "Windows"),
    ]
    (price,) = from_json({"SpotPriceHistory": rows})
    assert (price.region, price.usd, price.spot) == ("us-east-1", 0.4, True)


def test_retail_prices_of_azure_as_pages_and_as_csv() -> None:
    common = {"currencyCode": "USD", "type": "Consumption", "tierMinimumUnits": 0, "armRegionName": "westeurope"}
    machine_ = {**common, "serviceName": "Virtual Machines", "unitOfMeasure": "1 Hour", "armSkuName": "Standard_D4s_v5"}
    rows = [
        {**machine_, "skuName": "D4s v5", "productName": "Dsv5 Series", "retailPrice": 0.23},
        {**machine_, "skuName": "D4s v5 Spot", "productName": "Dsv5 Series", "retailPrice": 0.05},
        {**machine_, "skuName": "D4s v5 Low Priority", "productName": "Dsv5 Series", "retailPrice": 0.06},
        {**machine_, "skuName": "D4s v5", "productName": "Dsv5 Series Windows", "retailPrice": 0.41},
        {**machine_, "skuName": "D4s v5", "productName": "Dsv5 Series", "retailPrice": 0.1, "type": "Reservation"},
        {
            **common,
            "serviceName": "Storage",
            "unitOfMeasure": "1 GB/Month",
            "meterName": "Hot ZRS Data Stored",
            "retailPrice": 0.023,
        },
    ]
    pages = from_json([{"Items": rows[:3]}, {"Items": rows[3:]}])
    found = {(price.kind, price.item, price.spot): price.usd for price in pages}
    assert found == {
        ("instance", "Standard_D4s_v5", False): 0.23,
        ("instance", "Standard_D4s_v5", True): 0.05,
        ("storage", "blob-hot-zrs", False): 0.023,
    }
    titles = sorted({name for row in rows for name in row})
    text = "\n".join(
        ",".join(str(row.get(name, "")) for name in titles) for row in [dict(zip(titles, titles, strict=True)), *rows]
    )
    assert {(p.kind, p.item, p.spot): p.usd for p in from_csv(text)} == found
    with pytest.raises(InvalidPrices, match="currency"):
        from_json({"Items": [{**rows[0], "currencyCode": "EUR"}]})


def test_machines_of_google_are_put_together_from_their_parts() -> None:
    def sku(description: str, usage: str, nanos: int) -> dict[str, Any]:
        rate = {"unitPrice": {"units": "0", "nanos": nanos}}
        pricing = [{"pricingExpression": {"tieredRates": [rate]}}]
        category = {"usageType": usage}
        return {
            "description": description,
            "category": category,
            "serviceRegions": ["europe-west4"],
            "pricingInfo": pricing,
        }

    skus = [
        sku("G2 Instance Core running in Netherlands", "OnDemand", 27_000_000),
        sku("G2 Instance Ram running in Netherlands", "OnDemand", 3_000_000),
        sku("Nvidia L4 GPU running in Netherlands", "OnDemand", 600_000_000),
        sku("Commitment v1: G2 Cpu", "Commit1Yr", 1),
        sku("Spot Preemptible G2 Instance Core running in Netherlands", "Preemptible", 9_000_000),
    ]
    prices = {(price.item, price.spot): price.usd for price in from_json({"skus": skus})}
    assert prices["g2-standard-8", False] == pytest.approx(8 * 0.027 + 32 * 0.003 + 0.6)
    assert prices["g2-standard-48", False] == pytest.approx(48 * 0.027 + 192 * 0.003 + 4 * 0.6)
    assert not any(spot for _, spot in prices), "spot memory and GPU are not priced, so no spot machine is"


def test_an_export_without_a_usable_row_is_refused() -> None:
    for document in ({"Items": []}, {"skus": []}, {"SpotPriceHistory": []}, {"terms": {}}, 3):
        with pytest.raises(InvalidPrices):
            from_json(document)


# Machines


def test_a_gpu_machine_that_is_not_known_is_refused_and_another_has_none() -> None:
    for name in ("p9.48xlarge", "g7e.xlarge", "a4-highgpu-8g", "Standard_NC80xx_v9"):
        with pytest.raises(UnknownMachine, match=name):
            gpus(name)
    for name in ("m9i.large", "c7g.large", "n4-standard-8", "Standard_D4s_v6", "t4g.small"):
        assert gpus(name) == 0
    with pytest.raises(UnknownMachine):
        machine("m9i.large")


def test_machines_have_sizes_above_nothing() -> None:
    assert all(
        known.vcpus > 0 and known.memory_gib > 0 and (known.gpus > 0) == bool(known.gpu) for known in MACHINES.values()
    )
