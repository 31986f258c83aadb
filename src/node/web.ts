/** The ports of the web, and the certificate that they show. */
import { chmodSync, existsSync, unlinkSync } from 'node:fs'
import { hostname as systemHostname } from 'node:os'
import { join as joinPath } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { formatEndpoint } from '../base/endpoint.ts'
import { messageOf, RefusalError } from '../base/errors.ts'
import type { Random } from '../base/random.ts'
import type { Address, NodeOptions } from '../cli/world.ts'
import { type Certificate, hasCertificate, openCertificate } from '../config/certificate.ts'

/** Largest request of the web: a form, a list of recipients. */
const REQUEST_BYTES_MAX = 4 * 1024 * 1024

/** What the web shows: made anew when the directory has none. */
export async function certificateOf(
  options: NodeOptions,
  name: string,
  deps: { readonly clock: Clock; readonly random: Random },
): Promise<Certificate> {
  const { dataDir } = options
  if (!hasCertificate(dataDir)) await certified(options, name)
  return await openCertificate(dataDir, [name], deps)
}

/** In a process of its own: 6 MB less in this one. Should that fail, the pair is made here. */
async function certified({ command, dataDir }: NodeOptions, name: string): Promise<void> {
  const words = [...command, 'certificate', dataDir, name]
  const child = Bun.spawn(words, { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' })
  await child.exited
}

type Handle = (
  request: Request,
  client: { readonly ip: string; readonly trusted: boolean },
) => Promise<Response>

export type WebServers = {
  readonly url: string
  readonly port: number
  /** Once: lets in the requests that wait, and all later ones. */
  readonly serve: (handle: Handle) => void
  readonly stop: () => Promise<void>
}

/**
 * The web on its port, and the same on DIR/control.sock for whoever owns the directory. Opened
 * early, so that peers can be told where it is; requests wait until there is a node.
 */
export function openWeb(options: NodeOptions, certificate: Certificate): WebServers {
  const serving = Promise.withResolvers<Handle>()
  const handle: Handle = async (request, client) => (await serving.promise)(request, client)
  const { host, port, tls } = options.web
  const socket = joinPath(options.dataDir, 'control.sock')
  if (existsSync(socket)) unlinkSync(socket)
  const control = Bun.serve({
    unix: socket,
    maxRequestBodySize: REQUEST_BYTES_MAX,
    fetch: (request) => handle(request, { ip: '', trusted: true }),
  })
  chmodSync(socket, 0o600)
  try {
    const server = Bun.serve({
      hostname: host,
      port,
      maxRequestBodySize: REQUEST_BYTES_MAX,
      ...(tls ? { tls: { key: certificate.key, cert: certificate.cert } } : {}),
      fetch: (request, running) =>
        handle(request, { ip: running.requestIP(request)?.address ?? '', trusted: false }),
    })
    const shown = host === '0.0.0.0' || host === '::' ? systemHostname() : host
    return {
      port: server.port ?? port,
      url: `${tls ? 'https' : 'http'}://${formatEndpoint(shown, server.port ?? port)}`,
      serve: serving.resolve,
      stop: async () => {
        await server.stop(true)
        await control.stop(true)
        if (existsSync(socket)) unlinkSync(socket)
      },
    }
  } catch (error) {
    void control.stop(true)
    throw new RefusalError(
      'conflict',
      'web',
      `Cannot listen on ${host}:${port}: ${messageOf(error)}.`,
      `Stop what uses port ${port}, or choose another one with --web HOST:PORT.`,
    )
  }
}

/** As a new machine reaches the web of this node. */
export function doorOf(options: NodeOptions, url: string, advertise: readonly Address[]): string {
  const { host } = options.web
  const [best] = advertise
  if ((host !== '0.0.0.0' && host !== '::') || best === undefined) return url
  const { protocol, port } = new URL(url)
  return `${protocol}//${formatEndpoint(best.host, Number(port))}`
}

/** The binary that this is; from source there is none. */
export function programOf({ command: [program, ...rest] }: NodeOptions): {
  readonly program?: string
} {
  return program === undefined || rest.length > 0 ? {} : { program }
}
