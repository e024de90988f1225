// An HTTP server of three worker processes. Arguments: port, round-robin or shared.
const cluster = require('cluster');
const http = require('http');

cluster.schedulingPolicy = process.argv[3] === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
if (cluster.isPrimary) {
  for (let i = 0; i < 3; i++) cluster.fork();
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGTERM');
    let left = Object.keys(cluster.workers).length;
    cluster.on('exit', () => { if (--left === 0) process.exit(0); });
  });
} else {
  const server = http.createServer((request, response) => {
    response.writeHead(200, { 'Content-Length': 1, 'Connection': 'close' });
    response.end('x');
  });
  server.listen({ port: Number(process.argv[2]), host: '0.0.0.0' });
  process.on('SIGTERM', () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
