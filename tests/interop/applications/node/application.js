// A Node application: pg, instrumented by OpenTelemetry, shown by its exporter for Prometheus.

const http = require('node:http');
const { PrometheusExporter } = require('@opentelemetry/exporter-prometheus');
const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { PgInstrumentation } = require('@opentelemetry/instrumentation-pg');
const { MeterProvider } = require('@opentelemetry/sdk-metrics');

const exporter = new PrometheusExporter({ preventServerStart: true });
const meterProvider = new MeterProvider({ readers: [exporter] });
registerInstrumentations({ meterProvider, instrumentations: [new PgInstrumentation()] });
// Only what is loaded after its instrumentation is instrumented.
const { Pool } = require('pg');

const SIZE = 5;
const pool = new Pool({ connectionString: process.argv[2], max: SIZE });
let borrowed = [];
let waiting = [];

const routes = {
  '/borrow': async () => {
    for (let n = 0; n < SIZE; n++) borrowed.push(await pool.connect());
    waiting = [pool.connect(), pool.connect()];
  },
  '/release': async () => {
    for (const client of borrowed) client.release();
    for (const client of waiting) (await client).release();
    borrowed = [];
    waiting = [];
  },
};

const server = http.createServer(async (request, response) => {
  if (request.url === '/metrics') {
    exporter.getMetricsRequestHandler(request, response);
    return;
  }
  await routes[request.url]();
  response.end();
});
server.listen(0, '127.0.0.1', () => console.log(`127.0.0.1:${server.address().port}`));
