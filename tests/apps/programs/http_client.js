// Prints what a URL gives; with a second argument, posts that file to it.
const fs = require('fs');
const http = require('http');

const [url, file] = process.argv.slice(2);
const options = { method: file ? 'POST' : 'GET' };
const request = http.request(url, options, (response) => {
  if (response.statusCode !== 200) process.exit(1);
  response.pipe(process.stdout);
});
request.on('error', (error) => {
  console.error(error.message);
  process.exit(1);
});
if (file) fs.createReadStream(file).pipe(request);
else request.end();
