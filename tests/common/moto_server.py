"""moto's S3 server, with conditional puts one at a time.

moto looks whether an object exists and stores it in two steps, so that of two writers who create the
same object at once both may be told that they did. A real store does not do that.
"""

import io
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

ONE_AT_A_TIME = threading.Lock()
MOTO = DomainDispatcherApplication(create_backend_app)


def application(environ, start_response):
    if environ["REQUEST_METHOD"] != "PUT" or "HTTP_IF_NONE_MATCH" not in environ:
        return MOTO(environ, start_response)
    # A slow or cut connection must not hold the others up.
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    with ONE_AT_A_TIME:
        return list(MOTO(environ, start_response))


run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True)
