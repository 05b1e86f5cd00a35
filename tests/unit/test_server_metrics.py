"""An agent's model servers as one exposition: told apart by release, and none of them can spoil it."""

import re

from prometheus_client.parser import text_string_to_metric_families

from serving.regions.servers.server_metrics import gather_metrics, merge_metrics
from tests.fakes.faulty_backend import FaultyBackend, answer_class
from tests.fakes.ports import free_port

ONE = """# HELP flightpath_engine_requests_total Inference requests by HTTP status.
# TYPE flightpath_engine_requests_total counter
flightpath_engine_requests_total{model="digits",code="200"} 7.0
# HELP vllm:kv_cache_usage_perc KV cache
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{model_name="tiny"} 0.5
"""


def samples(text: bytes) -> dict[tuple[str, str], float]:
    found = text_string_to_metric_families(text.decode())
    return {(s.name, s.labels["release"]): s.value for family in found for s in family.samples}


def test_the_same_series_of_two_releases_stay_apart() -> None:
    merged = merge_metrics({"digits-1": ONE, "digits-2": ONE.replace("7.0", "9.0")})
    assert samples(merged) == {
        ("flightpath_engine_requests_total", "digits-1"): 7,
        ("flightpath_engine_requests_total", "digits-2"): 9,
        ("vllm:kv_cache_usage_perc", "digits-1"): 0.5,
        ("vllm:kv_cache_usage_perc", "digits-2"): 0.5,
    }
    assert len(re.findall("# TYPE flightpath_engine_requests_total counter", merged.decode())) == 1


def test_histograms_keep_their_buckets() -> None:
    text = '# TYPE s histogram\ns_bucket{le="1"} 2\ns_bucket{le="+Inf"} 3\ns_sum 4\ns_count 3\n'
    assert 's_bucket{le="+Inf",release="a"} 3.0' in merge_metrics({"a": text}).decode()


def test_what_is_no_exposition_is_left_out() -> None:
    assert samples(merge_metrics({"broken": "<html>{}", "whole": ONE})).keys() == {
        ("flightpath_engine_requests_total", "whole"),
        ("vllm:kv_cache_usage_perc", "whole"),
    }


async def test_a_dead_server_hides_no_other() -> None:
    with FaultyBackend(answer_class(1)) as other:
        text = await gather_metrics({"dead": f"http://127.0.0.1:{free_port()}", "no-metrics": other.url})
    assert text == b""
    assert await gather_metrics({}) == b""
