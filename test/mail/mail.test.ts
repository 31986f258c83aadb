/**
 * Each kept mail through a real node: it arrives with the bytes that were inspected, less our own
 * header lines; or it is held with them; or it stands on the list of refusals with its reason.
 */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { INSPECTOR_NAMES } from '../../src/config/schema.ts'
import { Postern } from '../process/postern.ts'
import { type Arrival, Sink, sha256 } from '../process/sink.ts'
import { Wire } from '../process/wire.ts'
import { listOf } from '../smtp/nodes.ts'
import { REFUSALS } from './refusals.ts'

const clock = new SystemClock()
const AT_A_TIME = 4
const LOCAL = INSPECTOR_NAMES.filter((name) => name !== 'sender' && name !== 'blocklists').join(',')
/** Lines that we add on top. */
const OURS = /^(?:Received|X-Spam-(?:Flag|Score|Rules)|Authentication-Results): /

const files = readdirSync(import.meta.dir)
  .filter((name) => name.endsWith('.eml'))
  .sort()

/** How a file goes out: bare LFs made CRLF as any client does, or its bytes as they are. */
const VARIANTS = {
  canonical: (bytes: Buffer) => latin1(text(bytes).replace(/(?<!\r)\n/g, '\r\n')),
  raw: (bytes: Buffer) => bytes,
} as const
type Variant = keyof typeof VARIANTS

type Case = {
  readonly file: string
  readonly variant: Variant
  /** What goes behind DATA, without stuffing; ends in CRLF. */
  readonly sent: Buffer
  readonly recipient: string
  reply: string
}

const text = (bytes: Buffer) => bytes.toString('latin1')
const latin1 = (string: string) => Buffer.from(string, 'latin1')
const endsInCrlf = (bytes: Buffer) =>
  text(bytes.subarray(-2)) === '\r\n' ? bytes : Buffer.concat([bytes, latin1('\r\n')])
/** What the repairing node makes of it: every line end a CRLF, no NUL. */
const repaired = (bytes: Buffer) =>
  latin1(
    text(bytes)
      .replaceAll('\0', '')
      .replace(/\r\n|\r|\n/g, '\r\n'),
  )
const isClean = (bytes: Buffer) => repaired(bytes).equals(bytes)

function casesOf(prefix: string): Case[] {
  return files.flatMap((file, at) =>
    (['canonical', 'raw'] as const).map((variant) => ({
      file,
      variant,
      sent: endsInCrlf(VARIANTS[variant](readFileSync(join(import.meta.dir, file)))),
      recipient: `${prefix}${at}${variant}@example.com`,
      reply: '',
    })),
  )
}

async function sendAll(cases: readonly Case[], port: number): Promise<void> {
  const waiting = [...cases]
  const lane = async () => {
    for (let one = waiting.shift(); one !== undefined; one = waiting.shift())
      one.reply = await send(one, port)
  }
  await Promise.all(Array.from({ length: AT_A_TIME }, lane))
}

/** The reply to the dot. */
async function send({ sent, recipient }: Case, port: number): Promise<string> {
  const wire = await Wire.connect({ port })
  try {
    await wire.reply()
    for (const line of [
      'EHLO client.example',
      'MAIL FROM:<s@client.example> BODY=8BITMIME',
      `RCPT TO:<${recipient}>`,
      'DATA',
    ]) {
      wire.send(`${line}\r\n`)
      const { code, lines } = await wire.reply()
      if (code >= 400) throw new Error(`${line}: ${lines.join(' ')}`)
    }
    // RFC 5321 section 4.5.2; a line begins after CRLF and nowhere else.
    wire.send(latin1(text(sent).replace(/^\./, '..').replaceAll('\r\n.', '\r\n..')))
    wire.send('.\r\n')
    return (await wire.reply(60_000)).lines.at(-1) ?? ''
  } finally {
    wire.drop()
  }
}

/** The message less the header lines that a gateway of ours put on top; null when it does not end in `sent`. */
function lessOurs(body: Buffer, sent: Buffer): Buffer | null {
  const at = body.length - sent.length
  if (at < 0) return null
  const added = text(body.subarray(0, at))
  const lines = added.replace(/\r\n[ \t]+/g, ' ').split('\r\n')
  if (lines.pop() !== '' || lines.length === 0 || !lines.every((line) => OURS.test(line)))
    return null
  return body.subarray(at)
}

for (const [newlines, expected] of [
  ['refuse', (bytes: Buffer) => bytes],
  ['repair', repaired],
] as const) {
  describe(`a node that is set to ${newlines}`, () => {
    const sink = new Sink({ keep: true })
    const cases = casesOf(newlines)
    let node: Postern
    let arrivals: Map<string, Arrival[]>
    let held: ReadonlyMap<string, string>
    beforeAll(async () => {
      node = await Postern.start()
      await node.addDomain('example.com', sink.nextHop)
      await node.set('mail.newlines', newlines)
      // What depends on the name servers of this machine is no part of it.
      await node.set('inspect.inspectors', LOCAL)
      await sendAll(cases, node.smtpPort)
      await node.queueEmpty(30_000)
      const accepted = cases.filter(({ reply }) => reply.startsWith('250')).length
      const heldRows = () =>
        listOf<{ id: string; recipients: string[] }>(node, '/api/v1/quarantine?limit=1000')
      // What is held is shown a moment after its 250.
      let rows = await heldRows()
      for (
        let tries = 0;
        rows.length + sink.arrivals.length < accepted && tries < 200;
        tries += 1
      ) {
        await pause(clock, 50)
        rows = await heldRows()
      }
      arrivals = Map.groupBy(sink.arrivals, ({ recipients }) => recipients[0]?.address ?? '')
      held = new Map(rows.map(({ id, recipients }) => [recipients[0] ?? '', id]))
      const count = (code: string) => cases.filter(({ reply }) => reply.startsWith(code)).length
      console.info(
        `${newlines}: ${cases.length} mails: ${count('250')} accepted, of them ${held.size} held; ${count('5')} refused, ${count('4')} put off`,
      )
    }, 120_000)
    afterAll(async () => {
      await node?.dispose()
      sink.stop()
    })

    for (const one of cases) {
      test(`${one.file} ${one.variant}`, async () => {
        const came = arrivals.get(one.recipient) ?? []
        const wanted = expected(one.sent)
        if (newlines === 'refuse' && !isClean(one.sent)) {
          expect(one.reply).toStartWith('550 5.6.11')
          expect(came).toEqual([])
          return
        }
        if (!one.reply.startsWith('250')) {
          expect({ file: one.file, reply: one.reply.replace(/^(\d{3} \S+).*$/, '$1') }).toEqual({
            file: one.file,
            reply: REFUSALS[one.file]?.reply ?? '250 2.0.0',
          })
          expect(came).toEqual([])
          return
        }
        const id = held.get(one.recipient)
        if (id !== undefined) {
          expect(came).toEqual([])
          const source = Buffer.from(
            await (await node.fetch(`/api/v1/quarantine/${id}/source`)).arrayBuffer(),
          )
          expect(sha256(lessOurs(source, wanted) ?? source)).toBe(sha256(wanted))
          return
        }
        expect(came.length).toBe(1)
        const body = came[0]?.body ?? Buffer.alloc(0)
        expect(sha256(lessOurs(body, wanted) ?? body)).toBe(sha256(wanted))
        expect(came[0]?.dirt).toEqual([])
      })
    }
  })
}

test('nothing stands on the list of refusals that is not a file here', () => {
  expect(Object.keys(REFUSALS).filter((name) => !files.includes(name))).toEqual([])
})
