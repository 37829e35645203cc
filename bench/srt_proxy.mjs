// Starts the proxies of @anthropic-ai/sandbox-runtime the way its SandboxManager does: one front end
// on a port, the HTTP proxy behind it on a Unix socket, and the SOCKS proxy beside that.
//
//   node srt_proxy.mjs DIST_SANDBOX PORT HOST CA CA_KEY ORIGIN_CA
import { readFileSync } from 'node:fs'

const [base, port, allowed, caCertPath, caKeyPath, originCA] = process.argv.slice(2)
const { createHttpProxyServer } = await import(`${base}/http-proxy.js`)
const { createSocksProxyServer } = await import(`${base}/socks-proxy.js`)
const { createMuxProxyServer } = await import(`${base}/mux-proxy.js`)
const { createMitmCA } = await import(`${base}/mitm-ca.js`)
const { matchesDomainPattern } = await import(`${base}/domain-pattern.js`)

const filter = (_port, host) => matchesDomainPattern(host, allowed)
const httpServer = createHttpProxyServer({
  filter,
  mitmCA: createMitmCA({ caCertPath, caKeyPath }),
  tlsTerminateUpstreamCA: readFileSync(originCA, 'utf8'),
  // A filter of requests, because that is what it decrypts for; it allows everything.
  filterRequest: () => ({ action: 'allow' }),
})
const socks = createSocksProxyServer({ filter })
const front = createMuxProxyServer({
  httpServer,
  handleSocksConnection: socket => socks.handleConnection(socket),
})
await front.listenHttpBackend()
front.server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
process.on('SIGTERM', () => process.exit(0))
