/** Tries a next hop without sending anything: connects, reads the greeting, says EHLO and QUIT. */
import type { Clock } from '../../base/clock.ts'
import type { Resolver } from '../../base/dns.ts'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { formatNextHop, parseNextHop } from '../../message/nexthop.ts'
import { Client } from './client.ts'
import { hopAddresses } from './route.ts'

/** An operator looks at a spinner meanwhile. */
const PROBE_MS_MAX = 10_000

export type Probe = { readonly hop: string; readonly ok: boolean; readonly answer: string }

/** Never rejects: what went wrong is the answer, in words. */
export async function probeNextHop(
  text: string,
  deps: { readonly clock: Clock; readonly resolver: Resolver; readonly hostname: string },
): Promise<Probe> {
  const hop = parseNextHop(text)
  if (hop === null) {
    return {
      hop: text,
      ok: false,
      answer: 'This is no next hop. Write smtp://HOST:PORT or lmtp://HOST:PORT.',
    }
  }
  const written = formatNextHop(hop)
  try {
    const [ip] = await hopAddresses(hop, deps.resolver)
    if (ip === undefined) return { hop: written, ok: false, answer: `${hop.host} has no address.` }
    const client = await Client.open(
      { protocol: hop.protocol, host: hop.host, ip, port: hop.port },
      {
        clock: deps.clock,
        hostname: deps.hostname,
        timeoutMs: PROBE_MS_MAX,
        mayEncrypt: true,
      },
    )
    const how = client.tls === null ? 'without encryption' : `with ${client.tls}`
    client.quit()
    return { hop: written, ok: true, answer: `${client.label} answers ${how}.` }
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    return { hop: written, ok: false, answer: messageOf(error) }
  }
}
