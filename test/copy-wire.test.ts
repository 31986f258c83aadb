/** What peers say of copies of mail is read as it was written, and nothing else is. */
import { describe, expect, test } from 'bun:test'
import { MessageIds, type NodeId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import { MESSAGE_BYTES_MAX } from '../src/cluster/contract.ts'
import {
  COMMIT_BYTES_MAX,
  commitEntries,
  type Entry,
  encodeCommit,
  encodeEntry,
  readCommit,
  readEntries,
} from '../src/cluster/copy-wire.ts'
import { type Commit, freshRecipient } from '../src/store/queued.ts'
import { ManualClock } from './clock.ts'

const NODE = '0123456789abcdef' as NodeId
const OTHER = 'fedcba9876543210' as NodeId
const ids = new MessageIds(NODE, 1, new ManualClock())
const ID = ids.next()
const ID2 = ids.next()

const BYTES = Uint8Array.from({ length: 500 }, (_, index) => index & 255)

function commitOf(recipients = 2): Commit {
  return {
    owner: NODE,
    term: 3,
    holders: [OTHER],
    envelope: {
      id: ID,
      receivedMs: 1_700_000_000_000,
      clientIp: '192.0.2.1',
      greeting: 'client.example',
      protocol: 'ESMTPS',
      tls: 'TLSv1.3 TLS_AES_256_GCM_SHA384',
      outbound: false,
      sender: '',
      eightBit: true,
      smtpUtf8: false,
      ret: 'HDRS',
      envid: null,
      recipients: Array.from({ length: recipients }, (_, index) => ({
        address: `${index}@${'d'.repeat(200)}.example`,
        notify: 'NEVER',
        orcpt: null,
      })),
    },
    prepend: 'Received: x\r\n',
    sizeBytes: 500,
    sha256: 'ab'.repeat(32),
    pieces: 1,
    expiresMs: 1_700_000_100_000,
    facts: { subject: 'ä', from: null, messageId: null, authors: ['a@b.example'] },
    verdicts: [],
    judgement: {
      verdict: 'hold',
      score: 3.5,
      findings: [{ rule: 'GTUBE', score: 100, evidence: 'x' }],
      unknowns: [{ inspector: 'dkim', cause: 'timeout' }],
      holdFrom: 5,
      rejectFrom: 15,
    },
    dsn: false,
    heldMoved: false,
    recipients: Array.from({ length: recipients }, () => freshRecipient('queued')),
  }
}

const ENTRIES: readonly Entry[] = [
  { kind: 'piece', id: ID, index: 7, bytes: BYTES },
  { kind: 'part', id: ID, json: BYTES },
  { kind: 'commit', id: ID, pieces: 8, json: encodeCommit(commitOf()), last: BYTES },
  { kind: 'commit', id: ID, pieces: 0, json: encodeCommit(commitOf()), last: new Uint8Array(0) },
  { kind: 'abort', id: ID },
  {
    kind: 'marks',
    number: 1,
    marks: [
      { id: ID, term: 1, kind: 'try', payload: { r: [0, 1] } },
      {
        id: ID2,
        term: 2,
        kind: 'defer',
        payload: { r: [0], reply: '451 x', in: 5_000, attempts: 2, doubt: true, warned: true },
      },
    ],
  },
  { kind: 'discard', number: 0xffff_ffff, names: [{ id: ID, term: 1 }] },
  {
    kind: 'holders',
    number: 3,
    holdings: [
      {
        id: ID,
        term: 1,
        holders: [
          [NODE, 'kept'],
          [OTHER, 'sent'],
        ],
      },
    ],
  },
  {
    kind: 'kept',
    names: [
      { id: ID, term: 1 },
      { id: ID2, term: 0xffff_ffff },
    ],
  },
  {
    kind: 'refused',
    refused: { id: ID, term: 4, why: 'stale', detail: 'another one', owner: OTHER },
  },
  { kind: 'refused', refused: { id: ID, term: 4, why: 'room', detail: 'full', owner: null } },
  { kind: 'told', number: 9 },
  { kind: 'credit', bytes: 512 * 1024 },
  { kind: 'have', names: [{ id: ID, term: 1 }] },
]

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat([...parts]))
}

describe('entries', () => {
  test('are read as they were written, alone and together', () => {
    for (const entry of ENTRIES) expect(readEntries(encodeEntry(entry))).toEqual([entry])
    expect(readEntries(joined(ENTRIES.map((entry) => encodeEntry(entry))))).toEqual([...ENTRIES])
    expect(readEntries(new Uint8Array(0))).toEqual([])
  })

  test('of a kind that only a later version knows are passed over', () => {
    const later = encodeEntry({ kind: 'told', number: 1 })
    later[0] = 200
    const told = encodeEntry({ kind: 'told', number: 2 })
    expect(readEntries(joined([later, told]))).toEqual([{ kind: 'told', number: 2 }])
  })

  test('that are cut anywhere are nothing', () => {
    for (const entry of ENTRIES) {
      const whole = encodeEntry(entry)
      for (let length = 1; length < whole.length; length += 1) {
        expect(readEntries(whole.subarray(0, length))).toBeNull()
      }
    }
  })

  test('with any octets changed never throw, and what is read fits what was sent', () => {
    const random = new SeededRandom(4)
    let read = 0
    for (let round = 0; round < 20_000; round += 1) {
      const bytes = encodeEntry(ENTRIES[random.below(ENTRIES.length)] as Entry)
      for (let count = random.below(4); count >= 0; count -= 1) {
        bytes[random.below(bytes.length)] = random.below(256)
      }
      for (const entry of readEntries(bytes) ?? []) {
        read += 1
        if (entry.kind === 'commit') readCommit(entry.id, entry.json)
        if (entry.kind === 'piece') expect(entry.bytes.length).toBeWithin(1, 64 * 1024 + 1)
        if (entry.kind === 'marks') {
          for (const { payload } of entry.marks) {
            expect(payload.r.every((index) => Number.isSafeInteger(index) && index >= 0)).toBe(true)
          }
        }
      }
    }
    expect(read).toBeGreaterThan(1_000)
  })

  test('with a field of the wrong kind are nothing', () => {
    const wrong: readonly (readonly ['marks' | 'holders', unknown])[] = [
      ['marks', {}],
      ['marks', [[ID, 1, 'try']]],
      ['marks', [[ID, 0, 'try', { r: [] }]]],
      ['marks', [['x', 1, 'try', { r: [] }]]],
      ['marks', [[ID, 1, 'explode', { r: [] }]]],
      ['marks', [[ID, 1, 'try', { r: [-1] }]]],
      ['marks', [[ID, 1, 'try', { r: [0.5] }]]],
      ['marks', [[ID, 1, 'try', { r: '0' }]]],
      ['marks', [[ID, 1, 'try', { r: [], reply: 5 }]]],
      ['marks', [[ID, 1, 'try', { r: [], reply: 'x'.repeat(5_000) }]]],
      ['marks', [[ID, 1, 'try', { r: [], attempts: -1 }]]],
      ['marks', [[ID, 1, 'try', { r: [], in: '5' }]]],
      ['marks', [[ID, 1, 'try', { r: [], doubt: 1 }]]],
      ['holders', [[ID, 1, [[NODE, 'lost']]]]],
      ['holders', [[ID, 1, [['x', 'kept']]]]],
      ['holders', [[ID, 1, Array.from({ length: 2_000 }, () => [NODE, 'kept'])]]],
    ]
    for (const [kind, list] of wrong) {
      const like = encodeEntry(
        kind === 'marks' ? { kind, number: 1, marks: [] } : { kind, number: 1, holdings: [] },
      )
      const json = new TextEncoder().encode(JSON.stringify({ l: list }))
      const bytes = joined([like.subarray(0, 9), json])
      new DataView(bytes.buffer).setUint32(1, 4 + json.length)
      expect(readEntries(bytes)).toBeNull()
    }
  })
})

describe('a COMMIT', () => {
  test('is read as it was written, with what only a later version knows', () => {
    const commit = { ...commitOf(), later: { x: 1 } }
    expect(readCommit(ID, encodeCommit(commit))).toEqual(commit)
    expect(readCommit(ID2, encodeCommit(commit))).toBeNull()
  })

  test('with any field missing or of another kind is none', () => {
    const commit = commitOf() as unknown as Record<string, unknown>
    const envelope = commit['envelope'] as Record<string, unknown>
    for (const name of Object.keys(commit)) {
      const { [name]: _, ...rest } = commit
      expect([name, readCommit(ID, encode(rest))]).toEqual([name, null])
      expect([name, readCommit(ID, encode({ ...commit, [name]: { x: 1 } }))]).toEqual([name, null])
    }
    for (const name of Object.keys(envelope)) {
      const { [name]: _, ...rest } = envelope
      expect(readCommit(ID, encode({ ...commit, envelope: rest }))).toBeNull()
      const bad = { ...envelope, [name]: { x: 1 } }
      expect(readCommit(ID, encode({ ...commit, envelope: bad }))).toBeNull()
    }
    for (const change of [
      { recipients: [] },
      { recipients: [freshRecipient('queued')] },
      { recipients: [{ ...freshRecipient('queued'), state: 'lost' }, freshRecipient('queued')] },
      { verdicts: [{ kind: 'deliver', score: 0, rules: [], unknown: [] }] },
      { sha256: 'AB'.repeat(32) },
      { term: 0 },
      { holders: ['x'] },
      { sizeBytes: -1 },
    ]) {
      expect(readCommit(ID, encode({ ...commit, ...change }))).toBeNull()
    }
  })

  test('that is long goes in parts, each of which fits a message', () => {
    const json = encodeCommit(commitOf(20_000))
    expect(json.length).toBeWithin(4 * 1024 * 1024, COMMIT_BYTES_MAX)
    const entries = commitEntries(ID, json, 12, BYTES).map((entry) => encodeEntry(entry))
    expect(Math.max(...entries.map(({ length }) => length))).toBeLessThan(MESSAGE_BYTES_MAX / 4)
    const read = entries.flatMap((entry) => readEntries(entry) ?? [])
    const parts = read.map((entry) =>
      entry.kind === 'part' || entry.kind === 'commit' ? entry.json : new Uint8Array(0),
    )
    expect(Buffer.compare(joined(parts), json)).toBe(0)
    expect(read.at(-1)).toMatchObject({ kind: 'commit', pieces: 12, last: BYTES })
  })
})

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}
