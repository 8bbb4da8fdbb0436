"""A Python application: SQLAlchemy over psycopg2, instrumented by OpenTelemetry, shown by its
exporter for Prometheus."""

import sys
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import make_wsgi_app
from sqlalchemy import create_engine

SIZE = 5

provider = MeterProvider(metric_readers=[PrometheusMetricReader()])
# The driver that it takes by itself is another.
url = sys.argv[1].replace("postgresql://", "postgresql+psycopg2://", 1)
engine = create_engine(url, pool_size=3, max_overflow=SIZE - 3, pool_timeout=3600)
SQLAlchemyInstrumentor().instrument(engine=engine, meter_provider=provider)

borrowed = []
waiters = []


def borrow():
    borrowed.append(engine.connect())


def wait_and_give_back():
    engine.connect().close()


def borrow_all():
    for _ in range(SIZE):
        borrow()
    for _ in range(2):
        waiters.append(threading.Thread(target=wait_and_give_back))
        waiters[-1].start()


def release_all():
    while borrowed:
        borrowed.pop().close()
    while waiters:
        waiters.pop().join()


metrics = make_wsgi_app()


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/metrics":
        return metrics(environ, start_response)
    {"/borrow": borrow_all, "/release": release_all}[path]()
    start_response("200 OK", [("Content-Length", "0")])
    return []


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


with make_server("127.0.0.1", 0, application, handler_class=Quiet) as server:
    print("%s:%d" % server.server_address, flush=True)
    server.serve_forever()
