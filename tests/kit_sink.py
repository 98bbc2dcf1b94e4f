"""An HTTPS service that delivers everything: notes method, path, credential and body of each request in a file."""

import http.server
import ssl
import sys

folder = sys.argv[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        with open(f"{folder}/requests", "a") as requests:
            print("POST", self.path, self.headers.get("authorization"), body.decode(), file=requests)
        answer = b'{"id":"1"}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
with open(f"{folder}/port", "w") as port:
    port.write(str(server.server_address[1]))
server.serve_forever()
