// Serves the files of a directory; POST /digest answers with the SHA-256 of the body.
// Arguments: port, directory. Listens as node does by default: on ::, both families.
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const path = require('path');

const server = http.createServer((request, response) => {
  if (request.method === 'POST') {
    const hash = crypto.createHash('sha256');
    request.on('data', (piece) => hash.update(piece));
    request.on('end', () => response.end(hash.digest('hex') + '\n'));
    return;
  }
  const file = path.join(process.argv[3], path.basename(request.url));
  response.writeHead(200, { 'Content-Length': fs.statSync(file).size });
  fs.createReadStream(file, { highWaterMark: 1 << 18 }).pipe(response);
});
server.listen(Number(process.argv[2]));
process.on('SIGTERM', () => {
  server.close();
  server.closeAllConnections();
});
