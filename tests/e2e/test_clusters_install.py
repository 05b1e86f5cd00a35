"""Everything that a region runs, from its real overlays, onto a Kubernetes API over HTTP; smoke waits for all of it."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tasks.clusters import installing
from tasks.clusters.errors import InstallFailed, NotReady
from tasks.clusters.outcomes import AppliedRegion
from tasks.clusters.settings import ClusterSettings
from tests.fakes.cluster_addons import definitions, report_rolled_out
from tests.fakes.kubernetes.app import ApiServer

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


async def test_a_real_overlay_is_installed_in_its_order_and_smoke_waits_for_every_workload(tmp_path: Path) -> None:
    async with ApiServer() as server:
        settings = ClusterSettings(kubeconfig=server.kubeconfig(tmp_path / "kubeconfig"), ready_s=2)
        region = AppliedRegion(region="us-east", digest="d", done=[], seconds=0)
        with pytest.raises(
            InstallFailed, match=r"lacks kinds, got no external-secrets\.io/v1, networking\.istio\.io/v1"
        ):
            await asyncio.to_thread(installing.install_region, region, "kubectl", settings)
        with pytest.raises(InstallFailed, match="has no Argo CD"):
            await asyncio.to_thread(installing.install_region, region, "argocd", settings)
        for definition in definitions():
            server.create(definition)
        installed = await asyncio.to_thread(installing.install_region, region, "kubectl", settings)
        assert installed.folders == [f"overlays/us-east/{part}" for part in installing.PARTS]
        assert "deployment/flightpath-operator" in installed.objects

        with pytest.raises(NotReady, match="Deployment flightpath-operator is not ready"):
            await asyncio.to_thread(installing.check_region, installed, settings)
        report_rolled_out(server)
        seen = await asyncio.to_thread(installing.check_region, installed, settings)
        assert "CustomResourceDefinition trainingjobs.flightpath.dev is established" in seen
        assert "Deployment flightpath-system/flightpath-operator is rolled out" in seen
        assert len(seen) >= 10

        silent = settings.model_copy(update={"gateway_url": "http://127.0.0.1:1", "ready_s": 0.1})
        with pytest.raises(NotReady, match="the gateway does not answer"):
            await asyncio.to_thread(installing.check_region, installed, silent)
