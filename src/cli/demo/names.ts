/**
 * The name server of the demo, which asks nobody outside: two of its senders have an SPF record,
 * and no other name exists.
 */
import { answerBytes } from '../../base/dns-message.ts'
import type { Address } from '../world.ts'

const RECORDS: ReadonlyMap<string, string> = new Map(
  ['supplier.example', 'harbour-books.example'].map((name) => [
    name,
    'v=spf1 ip4:127.0.0.0/8 ip6:::1 -all',
  ]),
)
const TTL_SECONDS = 60

const textOf = (name: string): string | null => RECORDS.get(name) ?? null

type DemoNames = { readonly address: Address; close(): void }

/** Listens on a loopback port that the system chooses. */
export async function serveNames(): Promise<DemoNames> {
  const host = '127.0.0.1'
  const socket = await Bun.udpSocket({
    hostname: host,
    port: 0,
    socket: {
      data: (from, bytes, port, address) => {
        const answer = answerBytes(bytes, textOf, TTL_SECONDS)
        if (answer !== null) from.send(answer, port, address)
      },
    },
  })
  return { address: { host, port: socket.port }, close: () => socket.close() }
}
