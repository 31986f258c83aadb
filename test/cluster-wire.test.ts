/** Bodies between peers: what was meant comes through, and nothing else gets past a reader. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { NodeId } from '../src/base/ids.ts'
import {
  type Answer,
  type Beat,
  DEPTH_MAX,
  encodeAnswer,
  encodeBatch,
  encodeBeat,
  encodeBody,
  encodeCall,
  encodeDigest,
  encodeFlow,
  encodePiece,
  encodePull,
  encodePush,
  encodeRepair,
  LEAVES,
  parseBody,
  readAnswer,
  readBatch,
  readBeat,
  readCall,
  readDigest,
  readFlow,
  readPiece,
  readPull,
  readPush,
  readRepair,
  WRITERS_MAX,
} from '../src/cluster/wire.ts'

const SEED = 20_261_122
const READERS = [
  readBeat,
  readPull,
  readBatch,
  readPush,
  readDigest,
  readRepair,
  readCall,
  readAnswer,
  readPiece,
  readFlow,
]

const hex = (digits: number): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), { minLength: digits, maxLength: digits })
    .map((all) => all.join(''))
const node = hex(16) as fc.Arbitrary<NodeId>
const writer = hex(12)
const count = fc.maxSafeNat()
const vector = fc
  .array(fc.tuple(writer, fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })), { maxLength: 5 })
  .map((all) => new Map(all))
const rows = fc.array(fc.jsonValue({ maxDepth: 5 }), { maxLength: 4 })
const short = fc.string({ maxLength: 60 })
const cursor = fc.record({ generation: short, at: count })

const beat: fc.Arbitrary<Beat> = fc.record({
  wallMs: count,
  report: fc.option(
    fc.record({
      ready: fc.boolean(),
      queue: count,
      held: count,
      diskFreeBytes: count,
      diskTotalBytes: count,
      takesCopies: fc.boolean(),
      copies: count,
      alone: count,
      inDoubt: count,
      troubles: fc.array(short, { maxLength: 16 }),
    }),
  ),
  apart: fc.option(fc.array(node, { maxLength: 4 })),
  feeds: fc.uniqueArray(
    fc.record({
      feed: fc.constantFrom('state', 'trace', 'later'),
      generation: fc.option(short),
      head: fc.option(count),
      vector: fc.option(vector),
      anew: fc.boolean(),
      more: fc.boolean(),
      root: fc.option(short),
      parked: fc.option(count),
      waits: fc.option(fc.boolean()),
    }),
    { selector: ({ feed }) => feed, maxLength: 3 },
  ),
})

describe('what was written', () => {
  const same = <Message>(
    name: string,
    arbitrary: fc.Arbitrary<Message>,
    encode: (message: Message) => Uint8Array,
    read: (body: Uint8Array) => unknown,
  ): void => {
    test(`is read again: ${name}`, () => {
      fc.assert(
        fc.property(arbitrary, (message) => {
          expect(read(encode(message))).toEqual(normal(message))
        }),
        { seed: SEED, numRuns: 300 },
      )
    })
  }
  same('beat', beat, encodeBeat, readBeat)
  same('pull', fc.record({ feed: short, cursor: fc.option(cursor) }), encodePull, readPull)
  same(
    'batch',
    fc
      .record({ feed: short, cursor, rows, final: fc.boolean(), vector })
      .map((batch) => ({ ...batch, vector: batch.final ? batch.vector : null })),
    encodeBatch,
    readBatch,
  )
  same(
    'push',
    fc
      .record({ feed: short, origin: node, writer, after: fc.nat(), upto: fc.nat(), rows })
      .map((push) => ({ ...push, upto: push.after + 1 + push.upto })),
    encodePush,
    readPush,
  )
  const leafNames = fc.record({
    leaf: fc.nat(LEAVES - 1),
    after: short,
    upto: fc.option(short),
    names: fc.array(fc.tuple(short, short), { maxLength: 4 }),
  })
  same(
    'digest',
    fc.oneof(
      fc.record({
        feed: short,
        covered: short,
        leaves: fc.array(short, { minLength: LEAVES, maxLength: LEAVES }),
        named: fc.constant(null),
      }),
      fc.record({
        feed: short,
        covered: short,
        leaves: fc.constant(null),
        named: fc.array(leafNames, { maxLength: 3 }),
      }),
    ),
    encodeDigest,
    readDigest,
  )
  same(
    'repair',
    fc.record({ feed: short, covered: short, rows, wanted: fc.array(short, { maxLength: 4 }) }),
    encodeRepair,
    readRepair,
  )
  const value = fc.jsonValue({ maxDepth: 5 })
  same('call', fc.record({ id: count, topic: short, value }), encodeCall, readCall)
  const answer: fc.Arbitrary<Answer> = fc.oneof(
    fc.record({ id: count, kind: fc.constantFrom('json' as const, 'stream' as const), value }),
    fc.record({
      id: count,
      kind: fc.constant('refusal' as const),
      code: fc.constantFrom('invalid' as const, 'conflict' as const, 'unavailable' as const),
      field: fc.option(short),
      message: fc.string({ maxLength: 500 }),
      advice: fc.string({ maxLength: 500 }),
    }),
  )
  same('answer', answer, encodeAnswer, readAnswer)
  same('flow', fc.record({ id: count, credit: fc.option(count) }), encodeFlow, readFlow)
  same(
    'piece',
    fc.record({
      id: fc.nat(0xffff_ffff),
      end: fc.constantFrom('open' as const, 'whole' as const, 'broken' as const),
      bytes: fc.uint8Array({ maxLength: 40 }),
    }),
    encodePiece,
    readPiece,
  )
})

/** JSON knows no -0. */
function normal(value: unknown): unknown {
  if (Object.is(value, -0)) return 0
  if (value instanceof Map || value instanceof Uint8Array) return value
  if (Array.isArray(value)) return value.map(normal)
  if (value === null || typeof value !== 'object') return value
  const copy: Record<string, unknown> = JSON.parse('{}')
  for (const [name, inner] of Object.entries(value)) {
    Object.defineProperty(copy, name, {
      value: normal(inner),
      enumerable: true,
      configurable: true,
      writable: true,
    })
  }
  return copy
}

describe('what is hostile', () => {
  test('any JSON at all is read or refused, never thrown at', () => {
    const keys = [...'fcrlvowaupsnqithmdgybex']
    const fields = fc.dictionary(
      fc.constantFrom(...keys),
      fc.oneof(
        fc.jsonValue({ maxDepth: 4 }),
        count,
        writer,
        node,
        fc.array(fc.anything(), { maxLength: 3 }),
        fc.dictionary(fc.oneof(writer, node, fc.constantFrom('state', ...keys)), fc.jsonValue()),
      ),
    )
    fc.assert(
      fc.property(fields, (value) => {
        const body = encodeBody(JSON.parse(JSON.stringify(value, unspeakable)))
        for (const read of READERS) read(body)
      }),
      { seed: SEED, numRuns: 3_000 },
    )
  })

  test('any bytes at all are read or refused, never thrown at', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (body) => {
        for (const read of READERS) read(body)
      }),
      { seed: SEED, numRuns: 3_000 },
    )
  })

  test('a body that is nested too deep is refused before it is parsed (K02)', () => {
    const nested = (depth: number): Uint8Array =>
      new TextEncoder().encode(`{"a":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`)
    expect(parseBody(nested(DEPTH_MAX))).not.toBeNull()
    expect(parseBody(nested(DEPTH_MAX + 1))).toBeNull()
    expect(parseBody(nested(10_000))).toBeNull()
    expect(parseBody(nested(250_000))).toBeNull()
    // Brackets in text are text.
    expect(parseBody(encodeBody({ a: '[{"\\"['.repeat(10_000) }))).not.toBeNull()
  })

  test('what is not UTF-8 is refused', () => {
    expect(parseBody(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d))).toBeNull()
  })

  const row = { kind: 'setting', key: 'k', state: {} }
  const push = { f: 'state', o: '0'.repeat(16), w: 'a'.repeat(12), a: 0, u: 1, r: [row] }
  const batch = { f: 'state', c: ['g', 1], r: [] }
  const refused: readonly (readonly [string, (body: Uint8Array) => unknown, unknown])[] = [
    ['a vector before the end', readBatch, { ...batch, v: { ['a'.repeat(12)]: 1 } }],
    ['a batch without a cursor', readBatch, { f: 'state', r: [], l: 1 }],
    ['a cursor of three', readBatch, { ...batch, c: ['g', 1, 2] }],
    ['a place before the first', readPull, { f: 'state', c: ['g', -1] }],
    ['rows that are no list', readBatch, { ...batch, r: { length: 3 } }],
    ['more rows than a message has', readBatch, { ...batch, r: Array(20_001).fill(0) }],
    ['a push of nothing', readPush, { ...push, u: 0 }],
    ['a push that ends before it begins', readPush, { ...push, a: 9 }],
    ['a count that is not whole', readPush, { ...push, u: 1.5 }],
    ['a count beyond a double', readPush, { ...push, u: 2 ** 53 }],
    ['a writer in capitals', readPush, { ...push, w: 'A'.repeat(12) }],
    ['a node that is none', readPush, { ...push, o: 'mx1' }],
    ['a writer in a vector that is none', readBeat, { w: 1, f: { state: { v: { x: 1 } } } }],
    ['a write of number 0', readBeat, { w: 1, f: { state: { v: { ['a'.repeat(12)]: 0 } } } }],
    ['a beat without a time', readBeat, {}],
    ['a node without a link that is none', readBeat, { w: 1, p: ['mx1'] }],
    ['a report that is none', readBeat, { w: 1, r: { q: 'many' } }],
    ['a digest of too few leaves', readDigest, { f: 'state', c: 'x', s: ['1'] }],
    ['a leaf that is none', readDigest, { f: 'state', c: 'x', n: [[256, '', null, []]] }],
    ['a call without a topic', readCall, { i: 1, v: 1 }],
    ['a long topic', readCall, { i: 1, t: 'x'.repeat(65), v: 1 }],
  ]
  for (const [name, read, value] of refused) {
    test(`${name} is refused`, () => expect(read(encodeBody(value))).toBeNull())
  }

  test('a vector with too many writers is refused', () => {
    const writers = (size: number): unknown => ({
      w: 1,
      f: {
        state: {
          v: Object.fromEntries(
            Array.from({ length: size }, (_, at) => [at.toString(16).padStart(12, '0'), 1]),
          ),
        },
      },
    })
    expect(readBeat(encodeBody(writers(WRITERS_MAX)))).not.toBeNull()
    expect(readBeat(encodeBody(writers(WRITERS_MAX + 1)))).toBeNull()
  })

  test('fields of a later version are passed over (K18)', () => {
    const later = { w: 1, zz: { new: true }, f: { state: { h: 3, q9: [1] } } }
    expect(readBeat(encodeBody(later))?.feeds[0]?.head).toBe(3)
    expect(readPush(encodeBody({ ...push, x: 1 }))).not.toBeNull()
    expect(readAnswer(encodeBody({ i: 1, c: 'tooLate', m: 'a', a: 'b' }))).toMatchObject({
      code: 'unavailable',
    })
  })

  test('a beat of an older build, which names peers another way, is taken', () => {
    const older = encodeBody({ w: 1, a: { '00000000000000a1': [0, 0, null] } })
    expect(readBeat(older)).toEqual({ wallMs: 1, report: null, apart: null, feeds: [] })
  })

  test('a quiet beat is 19 bytes', () => {
    const quiet = { wallMs: 1_795_348_800_000, report: null, apart: null, feeds: [] }
    expect(encodeBeat(quiet).length).toBe(19)
  })
})

/** Values that JSON has no word for. */
function unspeakable(_: string, value: unknown): unknown {
  return typeof value === 'bigint' ? Number(value) : value
}
