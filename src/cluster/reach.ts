/**
 * Whether a node that wants to join can be reached from here, on TCP and UDP: found out before it
 * is let in, while somebody looks. Probe: `PSTP | nonce 16 | mac 16`; answer: another mac of the
 * nonce, 16 bytes. The key came through the join's channel, so nobody else is answered.
 */
import { isIPv6 } from 'node:net'
import { messageOf } from '../base/errors.ts'
import type { ClusterDeps, PeerAddress } from './contract.ts'
import { Inbox, joinBytes } from './inbox.ts'
import { hmac, isSame } from './seal.ts'

const MAGIC = Uint8Array.of(0x50, 0x53, 0x54, 0x50)
const NONCE_BYTES = 16
const MAC_BYTES = 16
const PROBE_BYTES = MAGIC.length + NONCE_BYTES + MAC_BYTES
/** Each way of each address; all are tried at once. */
const REACH_MS_MAX = 3_000
/** A datagram may be lost; the fourth one is not. */
const AGAIN_AT_MS = [300, 900, 1_800]
/** A connection to the port of a node that is joining, and says nothing. */
const SILENT_MS_MAX = 5_000

/** Why an address is not reached, in words; null: it is. */
export type Reach = { readonly tcp: string | null; readonly udp: string | null }

/** Answers probes that hold `key`, and nothing else, until closed. @throws RefusalError port taken */
export async function answerProbes(
  listen: PeerAddress,
  key: Uint8Array,
  { network, clock }: Pick<ClusterDeps, 'network' | 'clock'>,
): Promise<{ readonly port: number; close(): void }> {
  const tcp = await network.listen(listen, (stream) => {
    const inbox = new Inbox()
    const timer = clock.after(SILENT_MS_MAX, () => stream.terminate())
    return {
      received: (bytes) => {
        if (inbox.length + bytes.length > PROBE_BYTES) return stream.terminate()
        inbox.push(bytes)
        const probe = inbox.take(PROBE_BYTES)
        if (probe === null) return
        const answer = answerOf(key, probe.slice())
        if (answer === null) return stream.terminate()
        stream.write(answer)
        stream.end()
      },
      drained: () => {},
      closed: () => timer.cancel(),
    }
  })
  try {
    const udp = await network.datagrams({ ...listen, port: tcp.port }, (bytes, from) => {
      const answer = answerOf(key, bytes.slice())
      if (answer !== null) udp.send(answer, from)
    })
    return {
      port: tcp.port,
      close: () => {
        tcp.close()
        udp.close()
      },
    }
  } catch (error) {
    tcp.close()
    throw error
  }
}

/** Tries both ways to `address`. Never rejects. */
export async function reach(
  address: PeerAddress,
  from: PeerAddress,
  key: Uint8Array,
  deps: Pick<ClusterDeps, 'network' | 'clock' | 'random'>,
): Promise<Reach> {
  const [tcp, udp] = await Promise.all([
    byStream(address, key, deps),
    byDatagram(address, from, key, deps),
  ])
  return { tcp, udp }
}

function byStream(
  address: PeerAddress,
  key: Uint8Array,
  { network, clock, random }: Pick<ClusterDeps, 'network' | 'clock' | 'random'>,
): Promise<string | null> {
  return new Promise((resolve) => {
    const { probe, answer } = newProbe(key, random.bytes(NONCE_BYTES))
    const timer = clock.after(REACH_MS_MAX, () => resolve('no answer'))
    const done = (why: string | null): void => {
      timer.cancel()
      resolve(why)
    }
    network
      .dial(
        address,
        (stream) => {
          const inbox = new Inbox()
          stream.write(probe)
          return {
            received: (bytes) => {
              inbox.push(bytes)
              const got = inbox.take(MAC_BYTES)
              if (got === null) return
              done(isSame(got, answer) ? null : 'another program answers')
              stream.terminate()
            },
            drained: () => {},
            closed: () => done('another program answers'),
          }
        },
        REACH_MS_MAX,
      )
      .catch((error) => done(messageOf(error)))
  })
}

async function byDatagram(
  address: PeerAddress,
  from: PeerAddress,
  key: Uint8Array,
  { network, clock, random }: Pick<ClusterDeps, 'network' | 'clock' | 'random'>,
): Promise<string | null> {
  const { probe, answer } = newProbe(key, random.bytes(NONCE_BYTES))
  const { promise, resolve } = Promise.withResolvers<string | null>()
  // An address of the other family cannot be sent to from our own one.
  const sameFamily = isIPv6(from.host) === isIPv6(address.host)
  const host = sameFamily ? from.host : isIPv6(address.host) ? '::' : '0.0.0.0'
  try {
    const socket = await network.datagrams({ host, port: 0 }, (bytes) => {
      if (isSame(bytes, answer)) resolve(null)
    })
    socket.send(probe, address)
    const timers = [
      ...AGAIN_AT_MS.map((ms) => clock.after(ms, () => socket.send(probe, address))),
      clock.after(REACH_MS_MAX, () => resolve('no answer')),
    ]
    const why = await promise
    for (const timer of timers) timer.cancel()
    socket.close()
    return why
  } catch (error) {
    return messageOf(error)
  }
}

function newProbe(key: Uint8Array, nonce: Uint8Array) {
  return {
    probe: joinBytes(MAGIC, nonce, macOf(key, 'probe', nonce)),
    answer: macOf(key, 'answer', nonce),
  }
}

/** Null: not a probe of who has the key. */
function answerOf(key: Uint8Array, probe: Uint8Array): Uint8Array | null {
  if (probe.length !== PROBE_BYTES) return null
  const nonce = probe.slice(MAGIC.length, MAGIC.length + NONCE_BYTES)
  return isSame(joinBytes(MAGIC, nonce, macOf(key, 'probe', nonce)), probe)
    ? macOf(key, 'answer', nonce)
    : null
}

function macOf(key: Uint8Array, what: string, nonce: Uint8Array): Uint8Array {
  return hmac(key, new TextEncoder().encode(what), nonce).slice(0, MAC_BYTES)
}
