"""The operator as a process, on the test API server and, where one is named, on a real control plane."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.operator import OperatorProcess
from tests.fakes.operator_cluster import Cluster, cluster_of


@pytest.fixture(params=["test server", pytest.param("real", marks=pytest.mark.cluster)])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster_of(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def operator(cluster: Cluster, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    async with cluster.operator(tmp_path / "operator.log") as running:
        yield running
        assert "Traceback" not in running.log, running.log
        assert "is forbidden: User" not in running.log, running.log
