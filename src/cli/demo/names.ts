/**
 * The name server of the demo, which asks nobody outside: two of its senders have an SPF record,
 * and no other name exists. Messages as in RFC 1035 section 4.
 */
import type { Address } from '../world.ts'

const RECORDS: ReadonlyMap<string, string> = new Map(
  ['supplier.example', 'harbour-books.example'].map((name) => [
    name,
    'v=spf1 ip4:127.0.0.0/8 ip6:::1 -all',
  ]),
)
const HEADER_BYTES = 12
const TYPE_TXT = 16
/** An answer, authoritative, to a question that wanted recursion. */
const FLAGS = 0x8580
const NO_SUCH_NAME = 3
const TTL_SECONDS = 60

export type DemoNames = { readonly address: Address; close(): void }

/** Listens on a loopback port that the system chooses. */
export async function serveNames(): Promise<DemoNames> {
  const host = '127.0.0.1'
  const socket = await Bun.udpSocket({
    hostname: host,
    port: 0,
    socket: {
      data: (from, bytes, port, address) => {
        const answer = answerTo(bytes)
        if (answer !== null) from.send(answer, port, address)
      },
    },
  })
  return { address: { host, port: socket.port }, close: () => socket.close() }
}

/** The answer to a question of one name; null: this is none. */
export function answerTo(bytes: Uint8Array): Uint8Array | null {
  const asked = Buffer.from(bytes)
  const labels: string[] = []
  let at = HEADER_BYTES
  for (let length = asked[at] ?? 0; length > 0; length = asked[at] ?? 0) {
    labels.push(asked.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
  }
  const end = at + 5
  if (asked.length < end || asked.readUInt16BE(4) !== 1) return null

  const text = RECORDS.get(labels.join('.').toLowerCase())
  const isAnswered = text !== undefined && asked.readUInt16BE(at + 1) === TYPE_TXT
  const header = Buffer.alloc(HEADER_BYTES)
  asked.copy(header, 0, 0, 2)
  header.writeUInt16BE(FLAGS | (text === undefined ? NO_SUCH_NAME : 0), 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(isAnswered ? 1 : 0, 6)
  const question = asked.subarray(HEADER_BYTES, end)
  return Buffer.concat([header, question, isAnswered ? recordOf(text) : Buffer.alloc(0)])
}

/** A TXT record of the name that was asked. */
function recordOf(text: string): Buffer {
  const record = Buffer.alloc(13)
  record.writeUInt16BE(0xc0_00 | HEADER_BYTES, 0)
  record.writeUInt16BE(TYPE_TXT, 2)
  record.writeUInt16BE(1, 4)
  record.writeUInt32BE(TTL_SECONDS, 6)
  record.writeUInt16BE(text.length + 1, 10)
  record.writeUInt8(text.length, 12)
  return Buffer.concat([record, Buffer.from(text, 'latin1')])
}
