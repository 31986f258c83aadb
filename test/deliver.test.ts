/** Delivery: the bytes that go out, and what becomes of each recipient. */
import { afterEach, expect, test } from 'bun:test'
import { tmpdir } from 'node:os'
import { SeededRandom } from '../src/base/random.ts'
import {
  brief,
  largeText,
  mail,
  memory,
  PREPEND,
  SETTINGS,
  Stage,
  TEXT,
  unstuffed,
} from './delivery.ts'

const stage = new Stage()
afterEach(() => stage.end())

test('a message arrives byte for byte behind our header lines', async () => {
  const hop = stage.hop()
  const [outcome] = await stage.deliverTo(hop, mail())
  expect(outcome).toEqual({
    kind: 'delivered',
    host: `127.0.0.1[127.0.0.1]:${hop.port}`,
    tls: null,
    reply: { code: 250, enhanced: '2.0.0', text: 'taken' },
    dsnPassedOn: true,
  })
  expect(hop.arrivals[0]?.wire.toString()).toBe(PREPEND + TEXT)
  expect(hop.sessions[0]?.lines.slice(0, 4)).toEqual([
    'EHLO gate.example',
    `MAIL FROM:<from@here.example> SIZE=${PREPEND.length + TEXT.length}`,
    'RCPT TO:<to@there.example>',
    'DATA',
  ])
})

test('dots at line starts are doubled on the wire and nowhere else', async () => {
  const body = '.first\r\n..second\r\nin. the .middle\r\n.\r\n\r\n.\r\n'
  const hop = stage.hop()
  await stage.deliverTo(hop, mail({ prepend: '', body: memory(body) }))
  expect(hop.arrivals[0]?.wire.toString()).toBe(
    '..first\r\n...second\r\nin. the .middle\r\n..\r\n\r\n..\r\n',
  )
})

test('an empty body and one without a last line end both end in a dot of their own', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  await deliverer.deliver(mail({ prepend: '', body: memory('') }), hop.route, SETTINGS)
  await deliverer.deliver(mail({ prepend: '', body: memory('cut') }), hop.route, SETTINGS)
  expect(hop.arrivals.map(({ wire }) => wire.toString())).toEqual(['', 'cut\r\n'])
})

test('a body in files arrives whole, small or far larger than a piece', async () => {
  const random = new SeededRandom(11)
  const line = (): string =>
    `${random.below(3) === 0 ? '.' : 'x'}${'y'.repeat(random.below(70))}\r\n`
  for (const lines of [3, 60_000]) {
    const bytes = Buffer.from(Array.from({ length: lines }, line).join(''))
    // Cuts in the middle of a line end and right before a dot are the odd ones.
    const cut = bytes.indexOf('\r\n.', bytes.length >> 1)
    const hop = stage.hop()
    const body = stage.extents(bytes, cut + 1, cut + 2)
    const [outcome] = await stage.deliverTo(hop, mail({ prepend: '', body }))
    expect(outcome?.kind).toBe('delivered')
    expect(Bun.hash(unstuffed(hop.arrivals[0]?.wire))).toBe(Bun.hash(bytes.toString('latin1')))
  }
})

/** faults.md A19: what would be the end of a message to some server. */
const SMUGGLING = ['\n.\n', '\n.\r\n', '\r.\r', '\r\n.\n', '\r\n.\r', '\r.\r\n', '\0', '\n', '\r']

for (const sequence of SMUGGLING) {
  test(`a body with ${JSON.stringify(sequence)} never leaves, small or large`, async () => {
    const hop = stage.hop()
    const poisoned = `Subject: x\r\n\r\na${sequence}MAIL FROM:<evil@x.example>\r\n`
    const large = Buffer.from(largeText() + poisoned)
    for (const body of [memory(poisoned), stage.extents(large)]) {
      const [outcome] = await stage.deliverTo(hop, mail({ body }))
      expect(brief(outcome)).toBe('never 554 5.6.11')
    }
    expect(hop.arrivals).toEqual([])
    expect(hop.lines.join('\n')).not.toContain('evil')
  })
}

test('a body that cannot be read in full is tried later and leaves no dot', async () => {
  const hop = stage.hop()
  const large = Buffer.from(largeText())
  const whole = stage.extents(large)
  const path = whole.extents[0]?.path ?? ''
  const bodies = [
    { ...whole, extents: [{ path: `${path}.gone`, offset: 0, length: large.length }] },
    { ...whole, extents: [{ path: tmpdir(), offset: 0, length: large.length }] },
    { ...whole, extents: [{ path, offset: 400_000, length: large.length }] },
    { ...whole, sizeBytes: large.length + 1 },
    { ...whole, sizeBytes: 7, extents: [{ path, offset: large.length + 4, length: 7 }] },
  ] as const
  for (const body of bodies) {
    const [outcome] = await stage.deliverTo(hop, mail({ body }))
    expect(brief(outcome)).toStartWith('later the body cannot be read')
  }
  expect(hop.arrivals).toEqual([])
  expect(hop.lines).not.toContain('.')
})
