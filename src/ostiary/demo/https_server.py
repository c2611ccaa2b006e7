"""An ordinary HTTPS server that has never heard of attestation: certificate, key and greeting are simply there."""

import http.server
import os
import ssl


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["GREETING"].encode() + b"\n")


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/app/cert.pem", "/app/key.pem")
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Hello)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
