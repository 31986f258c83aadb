/** Octets that are kept and do not go out: of a body, of a message in the queue, of one that was held. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { MessageId, NodeId } from '../src/base/ids.ts'
import { encodeCommit, readCommit } from '../src/cluster/copy-wire.ts'
import { bodySize, type Extent, withoutCuts } from '../src/message/body.ts'
import type { Cut } from '../src/message/verdict.ts'
import { readHeldMail } from '../src/store/held-mail.ts'
import { isCuts, Message } from '../src/store/queued.ts'
import { aCommit } from './commits.ts'
import { commitOf } from './copy-store.ts'
import { rooms } from './rooms.ts'

const ID = '01hzy7c3k0000000000000000a' as MessageId
const NODE = '0123456789abcdef' as NodeId

/** Gaps and lengths in turn: cuts in order and apart, some of them behind the end. */
const cutsOf = fc
  .array(fc.tuple(fc.nat(9), fc.integer({ min: 1, max: 9 })), { maxLength: 6 })
  .map((steps) => {
    let at = 0
    return steps.map(([gap, length]): Cut => {
      const offset = at + gap
      at = offset + length
      return [offset, length]
    })
  })

/** Octet by octet: what is left. */
function left(bytes: Uint8Array, cuts: readonly Cut[]): number[] {
  return [...bytes].filter((_, at) =>
    cuts.every(([from, length]) => at < from || at >= from + length),
  )
}

describe('a body without its cuts', () => {
  test('has every other octet in order, and says its size', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), cutsOf, (bytes, cuts) => {
        const body = withoutCuts({ kind: 'memory', bytes }, cuts)
        expect(body.kind === 'memory' ? [...body.bytes] : null).toEqual(left(bytes, cuts))
        expect(bodySize(body)).toBe(left(bytes, cuts).length)
      }),
    )
  })

  test('is the same in pieces of files, however it lies in them', () => {
    const files = fc.array(fc.nat(20), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(files, cutsOf, (lengths, cuts) => {
        const extents = lengths.map(
          (length, index): Extent => ({ path: String(index), offset: 100 * index, length }),
        )
        const sizeBytes = lengths.reduce((sum, length) => sum + length, 0)
        const places = extents.flatMap(({ path, offset, length }) =>
          Array.from({ length }, (_, at) => `${path} ${offset + at}`),
        )
        const body = withoutCuts({ kind: 'extents', extents, sizeBytes }, cuts)
        const found =
          body.kind === 'memory'
            ? []
            : body.extents.flatMap(({ path, offset, length }) =>
                Array.from({ length }, (_, at) => `${path} ${offset + at}`),
              )
        const wanted = left(new Uint8Array(sizeBytes), cuts).length
        const kept = places.filter((_, at) =>
          cuts.every(([from, length]) => at < from || at >= from + length),
        )
        expect(found).toEqual(kept)
        expect(bodySize(body)).toBe(wanted)
      }),
    )
  })
})

describe('the cuts of a COMMIT', () => {
  const bytes = Buffer.from('Authentication-Results: us\r\nSubject: x\r\n\r\nx\r\n')

  test('are left out on the way out, and kept for copies', () => {
    const message = new Message(ID, {
      ...aCommit(ID, bytes.length, 1, 0),
      owner: NODE,
      term: 1,
      holders: [],
      pieces: 0,
      cuts: [[0, 28]],
    })
    message.cached = bytes
    const out = message.outgoing()
    expect(out.kind === 'memory' ? Buffer.from(out.bytes).toString() : '').toBe(
      'Subject: x\r\n\r\nx\r\n',
    )
    expect(message.body()).toEqual({ kind: 'memory', bytes })
  })

  test('go to other nodes, and what is none is refused', () => {
    const commit = { ...commitOf(ID, NODE, 2), sha256: 'ab'.repeat(32) }
    for (const cuts of [
      undefined,
      [],
      [[0, 3]],
      [
        [0, 3],
        [3, 1],
        [9, 2],
      ],
    ] as const) {
      const sent = cuts === undefined ? commit : { ...commit, cuts }
      expect(readCommit(ID, encodeCommit(sent))).toEqual(sent)
    }
    for (const cuts of [
      {},
      [[0]],
      [[0, 0]],
      [[-1, 2]],
      [
        [5, 2],
        [6, 1],
      ],
      [[0, 1.5]],
      ['0'],
    ]) {
      expect([cuts, isCuts(cuts)]).toEqual([cuts, false])
      const sent = { ...commit, cuts: cuts as never }
      expect(readCommit(ID, encodeCommit(sent))).toBeNull()
    }
    expect(isCuts(Array.from({ length: 101 }, (_, at) => [2 * at, 1]))).toBe(false)
  })
})

describe('a held mail', () => {
  const { room } = rooms()

  test('says what is cut off when it is released', () => {
    const mail = { ...room().held(), cuts: [[0, 28]] as const }
    const text = JSON.stringify(mail)
    expect(readHeldMail(text, mail.row.id)?.cuts).toEqual([[0, 28]])
    expect(readHeldMail(JSON.stringify({ ...mail, cuts: [[0, 0]] }), mail.row.id)).toBeNull()
    expect(readHeldMail(JSON.stringify({ ...mail, cuts: undefined }), mail.row.id)).not.toBeNull()
  })
})
