"""One request, one answer: for tests whose subject is what the API server says, to whom and in which words."""

import json
import urllib.parse

import urllib3

from support import kubeconfig as kubeconfigs

JSON = "application/json"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"

RESOURCES = {
    "TrainJob": "apis/thole.dev/v1alpha1/namespaces/{}/trainjobs",
    "Dataset": "apis/thole.dev/v1alpha1/namespaces/{}/datasets",
}


class Answer:
    def __init__(self, response):
        self.code = response.status
        self.headers = response.headers
        self.object = json.loads(response.data) if response.data[:1] == b"{" else {}

    @property
    def ok(self):
        return self.code // 100 == 2

    @property
    def message(self):
        """What a refusal says."""
        return self.object.get("message", "")


class Api:
    """The API server of a kubeconfig of hack/control-plane.sh, as its administrator or as the bearer of `token`."""

    def __init__(self, kubeconfig, token=None):
        access = kubeconfigs.read(kubeconfig)
        own = {} if token else {"cert_file": access.certificate, "key_file": access.key}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._server = access.server
        self._pool = urllib3.PoolManager(ca_certs=access.authority, timeout=60, retries=False, **own)

    def request(self, method, path, body=None, content_type=JSON, **query):
        headers = {**self._headers, "Accept": JSON, "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        url = f"{self._server}/{path}?{urllib.parse.urlencode(query)}"
        return Answer(self._pool.request(method, url, body=data, headers=headers))
