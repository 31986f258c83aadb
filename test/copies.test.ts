/** Copies of mail in the spool: what a node keeps for another one, takes over, hands over, forgets. */
import { afterAll, expect, test } from 'bun:test'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { pause, SystemClock } from '../src/base/clock.ts'
import { StoreError } from '../src/base/errors.ts'
import { type Disk, systemDisk } from '../src/base/files.ts'
import { type MessageId, MessageIds, type NodeId, type SpoolId } from '../src/base/ids.ts'
import { PIECE_BYTES } from '../src/base/limits.ts'
import { Observer } from '../src/base/observe.ts'
import type { RecipientState } from '../src/message/rows.ts'
import { FRAME_BYTES } from '../src/store/bodies.ts'
import type { Copied, Copying, Mirror } from '../src/store/copies.ts'
import { openDatabase } from '../src/store/db.ts'
import { Fates } from '../src/store/fates.ts'
import { joined } from '../src/store/marks.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { AloneError, type CopyRule, Queue } from '../src/store/queue.ts'
import {
  type Commit,
  commitOf,
  freshRecipient,
  isFinal,
  type Message,
  type NewCommit,
  type QueuedRecipient,
} from '../src/store/queued.ts'
import { RECORD, readRecords, readSegmentHeader } from '../src/store/records.ts'
import { Spool } from '../src/store/spool.ts'
import { ManualClock } from './clock.ts'
import { aCommit as plainCommit } from './commits.ts'

const root = mkdtempSync(join(tmpdir(), 'postern-copies-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const A = '00000000000000aa' as NodeId
const B = '00000000000000bb' as NodeId
const C = '00000000000000cc' as NodeId
const clock = new SystemClock()
const ids = new MessageIds(A, 1, clock)
const SEGMENT = 64 * 1024
const WEEK_MS = 7 * 86_400_000

type Options = {
  readonly node?: NodeId
  readonly rule?: CopyRule
  readonly disk?: Disk
  readonly freeBytes?: () => number
  readonly clock?: ManualClock
  readonly segmentBytes?: number
}

type Opened = {
  readonly dir: string
  readonly queue: Queue
  readonly spool: Spool
  readonly fates: Fates
  readonly observer: Observer
  /** As kill -9 and a new start; what waited to be written to state.db is lost. */
  readonly again: (options?: Options) => Promise<Opened>
}

let directories = 0

async function open(
  options: Options = {},
  dir = join(root, String(++directories)),
): Promise<Opened> {
  mkdirSync(dir, { recursive: true })
  const time = options.clock ?? clock
  const observer = new Observer(time, () => {})
  const store = openDatabase(join(dir, 'state.db'), {
    synchronous: 'NORMAL',
    migrations: STATE_MIGRATIONS,
    clock: time,
    observer,
  })
  const fates = new Fates(store, { clock: time, keepMs: WEEK_MS })
  const { queue, spool } = await Queue.open(
    {
      dir,
      spoolId: '00000000000000bb' as SpoolId,
      clock,
      observer,
      freeSpace: () => ({ freeBytes: options.freeBytes?.() ?? 1e12, totalBytes: 1e12 }),
      segmentBytes: options.segmentBytes ?? SEGMENT,
      disk: options.disk ?? { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: () => {},
    },
    {
      clock: time,
      observer,
      node: options.node ?? A,
      fates,
      copies: () => options.rule ?? 'prefer',
    },
  )
  const again = async (next: Options = options): Promise<Opened> => {
    await spool.written()
    await spool.close()
    store.close()
    return await open(next, dir)
  }
  return { dir, queue, spool, fates, observer, again }
}

function aCommit(id: MessageId, sizeBytes: number, recipients = 1): NewCommit {
  return plainCommit(id, sizeBytes, recipients, clock.wallMs())
}

function ofB(id: MessageId, sizeBytes: number, recipients = 1, more: Partial<Commit> = {}): Commit {
  const given = aCommit(id, sizeBytes, recipients)
  return { ...given, owner: B, term: 1, holders: [A], pieces: 9, ...more }
}

async function accept(queue: Queue, body: string, recipients = 1): Promise<Message> {
  const id = ids.next()
  const draft = queue.draft(id)
  draft.add(Buffer.from(body))
  return await queue.commit(draft, aCommit(id, body.length, recipients), null)
}

/** A copy of another node's message, as its keeper takes it. */
async function keep(
  queue: Queue,
  body: string,
  {
    id = ids.next(),
    recipients = 1,
    ...more
  }: Partial<Omit<Commit, 'recipients'>> & { id?: MessageId; recipients?: number } = {},
): Promise<Message> {
  const draft = queue.draftCopy(id)
  for (let at = 0; at < body.length; at += 8_000) draft.add(Buffer.from(body.slice(at, at + 8_000)))
  return await queue.keep(draft, ofB(id, body.length, recipients, more))
}

async function bytesOf(queue: Queue, message: Message | null): Promise<string> {
  if (message === null) return 'nothing'
  const chunks: Uint8Array[] = []
  for await (const chunk of queue.read(message.body())) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}

function statesOf(message: Message | null): readonly RecipientState[] | null {
  return message === null ? null : message.recipients.map(({ state }) => state)
}

/** The owner's attempt ended for this recipient. */
function finish(queue: Queue, message: Message, index = 0): void {
  queue.mark('done', message, [index], { reply: '250 ok' })
  const recipient = message.recipients[index]
  if (recipient !== undefined) recipient.state = 'done'
  queue.settle(message)
}

/** Fills segments, so that what nobody needs any more is used again. */
async function pass(queue: Queue, count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) finish(queue, await accept(queue, 'x'.repeat(8_000)))
  await queue.synced()
}

async function until(isSo: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2_000 && !isSo(); turn++) await pause(clock, 1)
}

const ended = (...states: RecipientState[]) => states

// ---- copies of others ----

test('a copy without its COMMIT is nobody’s: after a restart there is nothing', async () => {
  const first = await open()
  first.queue.draftCopy(ids.next()).add(Buffer.from('never committed'))
  const { queue, spool } = await first.again()
  expect([queue.size, queue.copyCount]).toEqual([0, 0])
  await spool.close()
})

test('a copy is inert and survives: byte for byte, with its owner, apart from own mail', async () => {
  const first = await open()
  const body = 'Subject: x\r\n\r\n'.padEnd(30_000, 'y')
  const kept = await keep(first.queue, body, { recipients: 2, holders: [A, C] })
  const own = await accept(first.queue, 'own\r\n')
  for (const { queue } of [first, await first.again()]) {
    expect([...queue.messages()].map(({ id }) => id)).toEqual([own.id])
    expect([...queue.copies()].map(({ id }) => id)).toEqual([kept.id])
    expect([queue.size, queue.copyCount, queue.get(kept.id)]).toEqual([1, 1, null])
    const copy = queue.copy(kept.id)
    expect(copy).toMatchObject({ owner: B, term: 1 })
    expect([...(copy?.holders.keys() ?? [])]).toEqual([A, C])
    if (queue === first.queue) expect(await bytesOf(queue, copy)).toBe(body)
  }
})

// 32 and 64 KB: as nodes of the version before cut it.
test.each([32_768, 65_536])(
  'a copy that comes in parts of %d is stored in whole pieces, octet for octet',
  async (part) => {
    const first = await open({ segmentBytes: 1 << 20 })
    const sizes = [1, 20_000, 40_000, 65_536, 70_000, 131_072, 150_001]
    for (const size of sizes) {
      const id = ids.next()
      const body = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7 + size) % 251))
      const draft = first.queue.draftCopy(id)
      for (let at = 0; at < size; at += part) draft.add(body.subarray(at, at + part))
      const copy = await first.queue.keep(draft, ofB(id, size))
      const whole = Math.floor(size / PIECE_BYTES)
      expect([size, copy.pieces.length]).toEqual([size, Math.ceil(size / PIECE_BYTES)])
      expect(copy.pieces.slice(0, whole).every(({ length }) => length === PIECE_BYTES)).toBe(true)
      expect(copy.commit.pieces).toBe(copy.pieces.length)
      expect(await bytesOf(first.queue, copy)).toBe(body.toString('latin1'))
    }
    const { queue, spool } = await first.again()
    for (const copy of queue.copies()) {
      expect((await bytesOf(queue, copy)).length).toBe(copy.commit.sizeBytes)
    }
    expect(queue.copyCount).toBe(sizes.length)
    // Nobody commits this one.
    queue.draftCopy(ids.next()).add(Buffer.alloc(30_000))
    await spool.close()
  },
)

test('an own body that comes in longer parts, as sealed files have them, is cut into pieces', async () => {
  const first = await open({ segmentBytes: 1 << 20 })
  const body = Buffer.from(Array.from({ length: 150_001 }, (_, at) => (at * 7) % 251))
  const id = ids.next()
  const draft = first.queue.draft(id)
  for (let at = 0; at < body.length; at += FRAME_BYTES)
    draft.add(body.subarray(at, at + FRAME_BYTES))
  const message = await first.queue.commit(draft, aCommit(id, body.length), null)
  expect(Math.max(...message.pieces.map(({ length }) => length))).toBe(PIECE_BYTES)
  expect(await bytesOf(first.queue, message)).toBe(body.toString('latin1'))
  const { queue, spool } = await first.again()
  expect(await bytesOf(queue, queue.get(id))).toBe(body.toString('latin1'))
  await spool.close()
})

test('the acknowledgement of a copy waits for the sync', async () => {
  const waiting: (() => void)[] = []
  let isHeld = false
  const disk: Disk = {
    ...systemDisk,
    sync: (_, done) => (isHeld ? waiting.push(() => done(null)) : done(null)),
  }
  const { queue, spool } = await open({ disk })
  isHeld = true
  let isKept = false
  const keeping = keep(queue, 'copy\r\n').then(() => {
    isKept = true
  })
  await until(() => waiting.length > 0)
  await spool.written()
  expect([isKept, queue.copyCount]).toEqual([false, 0])
  isHeld = false
  for (const run of waiting) run()
  await keeping
  expect(queue.copyCount).toBe(1)
  await spool.close()
})

test('a copy with missing bytes is refused, and nothing of it comes back', async () => {
  const first = await open()
  const id = ids.next()
  const draft = first.queue.draftCopy(id)
  draft.add(Buffer.from('half'))
  expect(first.queue.keep(draft, ofB(id, 8))).rejects.toThrow('4 of 8 bytes')
  const { queue, spool } = await first.again()
  expect(queue.copyCount).toBe(0)
  await spool.close()
})

test('a copy of what this node owns, or knows under a higher title, is refused', async () => {
  const { queue, spool } = await open()
  const own = await accept(queue, 'own\r\n')
  expect(keep(queue, 'own\r\n', { id: own.id, term: 5 })).rejects.toThrow('this node owns it')
  expect(keep(queue, 'own\r\n', { owner: A })).rejects.toThrow('said to be ours')
  const copy = await keep(queue, 'copy\r\n', { owner: C, term: 2 })
  expect(keep(queue, 'copy\r\n', { id: copy.id, term: 1 })).rejects.toThrow('term 2')
  expect(keep(queue, 'copy\r\n', { id: copy.id, owner: B, term: 2 })).rejects.toThrow('term 2')
  expect(queue.copy(copy.id)).toBe(copy)
  await spool.close()
})

test('the same copy again is fine, a higher title replaces it, and what was known stays known', async () => {
  const first = await open()
  const { queue } = first
  const copy = await keep(queue, 'one\r\n', { recipients: 2 })
  queue.markCopy(copy.id, 'done', { r: [1] })
  const same = await keep(queue, 'one\r\n', { id: copy.id, recipients: 2 })
  expect(statesOf(same)).toEqual(['queued', 'done'])
  await keep(queue, 'one\r\n', { id: copy.id, recipients: 2, owner: C, term: 3 })
  const after = await first.again()
  expect(after.queue.copyCount).toBe(1)
  const found = after.queue.copy(copy.id)
  expect(found).toMatchObject({ owner: C, term: 3 })
  expect(statesOf(found)).toEqual(['queued', 'done'])
  expect(await bytesOf(after.queue, found)).toBe('one\r\n')
  await after.spool.close()
})

test('two bodies of one message that arrive mixed do not spoil each other', async () => {
  const first = await open()
  const { queue } = first
  const id = ids.next()
  const slow = queue.draftCopy(id)
  slow.add(Buffer.from('from the old '))
  const quick = queue.draftCopy(id)
  quick.add(Buffer.from('from the '))
  slow.add(Buffer.from('owner'))
  quick.add(Buffer.from('new owner'))
  await queue.keep(quick, ofB(id, 18, 1, { owner: C, term: 2 }))
  slow.abort()
  const after = await first.again()
  expect(await bytesOf(after.queue, after.queue.copy(id))).toBe('from the new owner')
  await after.spool.close()
})

test('what the owner says while the copy is being synced is not lost', async () => {
  const first = await open()
  const { queue } = first
  const marked = ids.next()
  const over = ids.next()
  const both = [marked, over].map((id) => {
    const draft = queue.draftCopy(id)
    draft.add(Buffer.from('x\r\n'))
    return queue.keep(draft, ofB(id, 3, 2))
  })
  queue.markCopy(marked, 'done', { r: [0] })
  queue.forgetCopy(over)
  await Promise.all(both)
  expect(queue.copy(over)).toBeNull()
  const after = await first.again()
  expect(statesOf(after.queue.copy(marked))).toEqual(['done', 'queued'])
  expect(after.queue.copyCount).toBe(1)
  await after.spool.close()
})

test('marks of the owner are those of the copy: also after a restart, a done one is never undone', async () => {
  const first = await open()
  const { queue } = first
  const { id } = await keep(queue, 'x\r\n', { recipients: 4 })
  queue.markCopy(id, 'try', { r: [0, 1] })
  queue.markCopy(id, 'done', { r: [1] })
  queue.markCopy(id, 'defer', { r: [1, 2], at: 5, attempts: 3, reply: '451 later' })
  queue.markCopy(id, 'fail', { r: [3] })
  queue.markCopy(id, 'defer', { r: [3], at: 5 })
  queue.markCopy(id, 'hold', { r: [0] })
  queue.markCopy(id, 'done', { r: [99] })
  queue.markCopy(ids.next(), 'done', { r: [0] })
  for (const { queue: one } of [first, await first.again()]) {
    const copy = one.copy(id)
    expect(statesOf(copy)).toEqual(['trying', 'done', 'deferred', 'failed'])
    expect(copy?.recipients[2]).toMatchObject({ nextTryMs: 5, attempts: 3, lastReply: '451 later' })
    expect(copy?.heldMoved).toBe(false)
  }
})

test('times of another node are counted from now, by the own clock', async () => {
  const time = new ManualClock(5_000_000)
  const { queue, spool } = await open({ clock: time })
  const id = ids.next()
  const draft = queue.draftCopy(id)
  draft.add(Buffer.from('x\r\n'))
  const recipients = [{ ...freshRecipient('deferred'), nextTryMs: 60_000, attempts: 2 }]
  const copy = await queue.keep(draft, { ...ofB(id, 3), recipients })
  expect(copy.recipients[0]).toMatchObject({ nextTryMs: 5_060_000, attempts: 2 })
  queue.markCopy(id, 'defer', { r: [0], at: 999, in: 90_000 })
  expect(copy.recipients[0]?.nextTryMs).toBe(5_090_000)
  expect(commitOf(copy, time.wallMs()).recipients[0]?.nextTryMs).toBe(90_000)
  await spool.close()
})

test('a discarded copy is gone, now and after a restart; the same may come again', async () => {
  const first = await open()
  const { id } = await keep(first.queue, 'x\r\n')
  first.queue.forgetCopy(id)
  expect(first.queue.copyCount).toBe(0)
  const second = await first.again()
  expect(second.queue.copyCount).toBe(0)
  await keep(second.queue, 'x\r\n', { id })
  const third = await second.again()
  expect(statesOf(third.queue.copy(id))).toEqual(['queued'])
  await third.spool.close()
})

test('how a discarded copy ended is remembered, for an owner whose disk goes back', async () => {
  const { queue, spool } = await open()
  const { id } = await keep(queue, 'x\r\n')
  queue.markCopy(id, 'done', { r: [0] })
  queue.forgetCopy(id)
  expect(queue.copy(id)).toBeNull()
  expect(queue.fate(id)).toMatchObject({ id, term: 1, states: ['done'] })
  await spool.close()
})

test('a discarded copy with a held recipient stays until its sealed file is written', async () => {
  const first = await open()
  const id = ids.next()
  const draft = first.queue.draftCopy(id)
  draft.add(Buffer.from('held\r\n'))
  const recipients = [freshRecipient('held'), freshRecipient('queued')]
  await first.queue.keep(draft, { ...ofB(id, 6, 2), recipients })
  first.queue.markCopy(id, 'done', { r: [1] })
  first.queue.forgetCopy(id)
  const second = await first.again()
  const seen: Message[] = []
  second.queue.onKept((copy) => seen.push(copy))
  expect(seen.map((copy) => copy.id)).toEqual([id])
  const copy = seen[0] as Message
  expect(await second.queue.adopt([{ id, term: 2 }])).toEqual([])
  second.queue.mark('hold', copy, [0])
  copy.heldMoved = true
  second.queue.settle(copy)
  expect(second.queue.copyCount).toBe(0)
  const third = await second.again()
  expect(third.queue.copyCount).toBe(0)
  await third.spool.close()
})

test('onKept tells every copy once, those of before and those to come', async () => {
  const { queue, spool } = await open()
  const before = await keep(queue, 'x\r\n')
  const seen: MessageId[] = []
  queue.onKept(({ id }) => seen.push(id))
  const after = await keep(queue, 'x\r\n')
  expect(seen).toEqual([before.id, after.id])
  await spool.close()
})

test('copies leave 10 % of the disk free, own mail 5 %', async () => {
  const part = (free: number) => open({ freeBytes: () => 1e12 * free })
  const most = await part(0.11)
  expect([most.queue.hasRoomForCopy(1_000), most.queue.hasRoom(1_000)]).toEqual([true, true])
  const less = await part(0.09)
  expect([less.queue.hasRoomForCopy(1_000), less.queue.hasRoom(1_000)]).toEqual([false, true])
  for (const { spool } of [most, less]) await spool.close()
})

// ---- owners ----

test('a copy that is adopted is an own message: tried ones in doubt, all else as it was', async () => {
  const first = await open()
  const { queue } = first
  const { id, commit } = await keep(queue, 'body\r\n', { recipients: 4, holders: [A, C] })
  queue.markCopy(id, 'try', { r: [0] })
  queue.markCopy(id, 'defer', { r: [1], at: 77, attempts: 4, reply: '451 later' })
  queue.markCopy(id, 'done', { r: [2] })
  const told: MessageId[] = []
  queue.onOwned((messages) => told.push(...messages.map((message) => message.id)))
  const unknown = ids.next()
  const adopted = await queue.adopt([
    { id, term: 2 },
    { id: unknown, term: 2 },
  ])
  expect(adopted.map((message) => message.id)).toEqual([id])
  expect(told).toEqual([id])
  expect(await queue.adopt([{ id, term: 2 }])).toEqual([])
  for (const { queue: one } of [first, await first.again()]) {
    const own = one.get(id)
    expect([one.size, one.copyCount]).toEqual([1, 0])
    expect(own).toMatchObject({ owner: A, term: 2 })
    expect(statesOf(own)).toEqual(['inDoubt', 'deferred', 'done', 'queued'])
    expect(own?.recipients[0]?.doubtful).toBe(true)
    expect(own?.recipients[1]).toMatchObject({ nextTryMs: 77, attempts: 4, lastReply: '451 later' })
    expect(own?.commit.expiresMs).toBe(commit.expiresMs)
    // The old owner may come back, with its bytes.
    expect([...(own?.holders ?? [])].sort()).toEqual([
      [B, 'sent'],
      [C, 'sent'],
    ])
  }
})

test('a term that is not higher adopts nothing', async () => {
  const { queue, spool } = await open()
  const { id } = await keep(queue, 'x\r\n', { term: 3 })
  expect(await queue.adopt([{ id, term: 3 }])).toEqual([])
  expect(await queue.adopt([{ id, term: 2 }])).toEqual([])
  expect(queue.copy(id)?.owner).toBe(B)
  await spool.close()
})

test('a message that is handed over is a copy with its bytes, of a restart too', async () => {
  const first = await open()
  const { queue } = first
  const message = await accept(queue, 'handed\r\n', 3)
  finish(queue, message, 1)
  await queue.handOver(message, C, 2)
  for (const one of [first, await first.again()]) {
    const copy = one.queue.copy(message.id)
    expect([one.queue.size, one.queue.copyCount]).toEqual([0, 1])
    expect(copy).toMatchObject({ owner: C, term: 2 })
    expect(statesOf(copy)).toEqual(['queued', 'done', 'queued'])
    expect(copy?.holders.get(A)).toBe('sent')
    if (one !== first) expect(await bytesOf(one.queue, copy)).toBe('handed\r\n')
  }
})

test('after a handover the marks of both terms count, and done wins', async () => {
  const first = await open()
  const { queue } = first
  const message = await accept(queue, 'x\r\n', 3)
  queue.mark('fail', message, [0], { reply: '550 no' })
  Object.assign(message.recipients[0] as QueuedRecipient, { state: 'failed' })
  finish(queue, message, 1)
  await queue.handOver(message, C, 2)
  queue.markCopy(message.id, 'done', { r: [0] })
  queue.markCopy(message.id, 'fail', { r: [1, 2] })
  const after = await first.again()
  expect(statesOf(after.queue.copy(message.id))).toEqual(['done', 'done', 'failed'])
  await after.spool.close()
})

test('an attempt that ends after the handover still leaves its mark, and is told', async () => {
  const first = await open()
  const { queue } = first
  const mirror = new FakeMirror()
  queue.mirror = mirror
  const message = await accept(queue, 'x\r\n')
  await queue.handOver(message, C, 2)
  finish(queue, message)
  expect(mirror.markedOf).toEqual([C])
  const after = await first.again()
  expect(statesOf(after.queue.copy(message.id))).toEqual(['done'])
  await after.spool.close()
})

test('what a former owner has done is done here, and what it tried is doubtful', async () => {
  const first = await open()
  const { queue } = first
  const { id } = await keep(queue, 'x\r\n', { recipients: 3 })
  await queue.adopt([{ id, term: 2 }])
  queue.markCopy(id, 'try', { r: [1] })
  queue.markCopy(id, 'done', { r: [0] })
  queue.markCopy(id, 'fail', { r: [2] })
  const own = queue.get(id)
  expect(statesOf(own)).toEqual(['done', 'queued', 'queued'])
  expect(own?.recipients.map(({ doubtful }) => doubtful)).toEqual([false, true, false])
  const after = await first.again()
  expect(statesOf(after.queue.get(id))).toEqual(['done', 'inDoubt', 'queued'])
  await after.spool.close()
})

test('setOwner goes up only', async () => {
  const first = await open()
  const { queue } = first
  const { id } = await keep(queue, 'x\r\n', { owner: C, term: 2 })
  queue.setOwner(id, B, 1)
  queue.setOwner(id, B, 2)
  queue.setOwner(id, A, 9)
  expect(queue.copy(id)).toMatchObject({ owner: C, term: 2 })
  queue.setOwner(id, B, 3)
  const after = await first.again()
  expect(after.queue.copy(id)).toMatchObject({ owner: B, term: 3 })
  await after.spool.close()
})

test('of two titles in the spool the higher one holds, whichever was written first', async () => {
  for (const order of [
    [2, 3],
    [3, 2],
  ]) {
    const dir = join(root, `order-${order.join('')}`)
    mkdirSync(dir)
    const id = ids.next()
    const spool = await rawSpool(dir)
    for (const [turn, term] of order.entries()) {
      spool.append(RECORD.copy, id, (turn + 1) << 20, Buffer.from('x\r\n'))
      const recipients = [freshRecipient(term === 2 ? 'done' : 'queued'), freshRecipient('queued')]
      const commit = { ...ofB(id, 3, 2, { term }), pieces: 1, recipients }
      spool.append(RECORD.commit, id, (turn + 1) << 20, Buffer.from(JSON.stringify(commit)))
    }
    await spool.close()
    const opened = await open({}, dir)
    const copy = opened.queue.copy(id)
    expect(copy?.term).toBe(3)
    expect(statesOf(copy)).toEqual(['done', 'queued'])
    expect(await bytesOf(opened.queue, copy)).toBe('x\r\n')
    await opened.spool.close()
  }
})

test('a spool of before there were copies is own mail of term 1 with no holders', async () => {
  const dir = join(root, 'old')
  mkdirSync(dir)
  const id = ids.next()
  const spool = await rawSpool(dir)
  spool.append(RECORD.accept, id, 0, Buffer.from('old '))
  spool.append(RECORD.accept, id, 1, Buffer.from('mail'))
  const commit = { ...aCommit(id, 8, 2), pieces: 2 }
  spool.append(RECORD.commit, id, 0, Buffer.from(JSON.stringify(commit)))
  spool.append(RECORD.done, id, 0, Buffer.from('{"r":[0]}'))
  await spool.close()
  const { queue, spool: opened } = await open({}, dir)
  const found = queue.get(id)
  expect(found).toMatchObject({ owner: A, term: 1 })
  expect(found?.holders.size).toBe(0)
  expect(statesOf(found)).toEqual(['done', 'queued'])
  expect(await bytesOf(queue, found)).toBe('old mail')
  await opened.close()
})

async function rawSpool(dir: string): Promise<Spool> {
  const spool = await Spool.open(
    {
      dir,
      spoolId: '00000000000000bb' as SpoolId,
      clock,
      observer: new Observer(clock, () => {}),
      freeSpace: () => ({ freeBytes: 1e12, totalBytes: 1e12 }),
      segmentBytes: SEGMENT,
      disk: { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: () => {},
    },
    () => {},
  )
  await spool.start()
  return spool
}

// ---- fates ----

test('what became of a message with more than one owner is known for a week, of plain mail never', async () => {
  const time = new ManualClock()
  const { queue, fates, spool } = await open({ clock: time })
  const plain = await accept(queue, 'x\r\n')
  const { id } = await keep(queue, 'x\r\n', { recipients: 2 })
  await queue.adopt([{ id, term: 2 }])
  expect(queue.fate(id)).toBeNull()
  const own = queue.get(id) as Message
  for (const node of [...own.holders.keys()]) queue.setHolder(own, node, null)
  finish(queue, plain)
  finish(queue, own, 0)
  finish(queue, own, 1)
  const fate = { id, term: 2, owner: A, states: ended('done', 'done') }
  expect(queue.fate(id)).toMatchObject(fate)
  time.advance(200)
  expect(fates.get(id)).toMatchObject(fate)
  expect(queue.fate(plain.id)).toBeNull()
  time.advance(WEEK_MS - 300)
  expect(queue.fate(id)).toMatchObject(fate)
  time.advance(200)
  expect(queue.fate(id)).toBeNull()
  await spool.close()
})

test('a fate that was not yet written at a crash is told again by the spool', async () => {
  const time = new ManualClock()
  const first = await open({ clock: time })
  const { id } = await keep(first.queue, 'x\r\n')
  await first.queue.adopt([{ id, term: 2 }])
  const own = first.queue.get(id) as Message
  for (const node of [...own.holders.keys()]) first.queue.setHolder(own, node, null)
  finish(first.queue, own)
  expect(first.queue.size).toBe(0)
  const handed = await accept(first.queue, 'y\r\n')
  await first.queue.handOver(handed, C, 2)
  finish(first.queue, handed)
  first.queue.forgetCopy(handed.id)
  // Nothing has moved the clock: both fates are still in memory.
  const later = new ManualClock()
  const second = await first.again({ clock: later })
  expect(second.queue.fate(id)).toMatchObject({ term: 2, owner: A, states: ended('done') })
  expect(second.queue.fate(handed.id)).toMatchObject({ term: 2, owner: C, states: ended('done') })
  expect(second.queue.size + second.queue.copyCount).toBe(0)
  later.advance(200)
  const third = await second.again()
  expect(third.queue.fate(id)).toMatchObject({ term: 2, owner: A, states: ended('done') })
  await third.spool.close()
})

test('the spool keeps a message until its fate is in the table', async () => {
  const time = new ManualClock()
  const { queue, spool } = await open({ clock: time })
  const { id } = await keep(queue, 'x\r\n')
  await queue.adopt([{ id, term: 2 }])
  const own = queue.get(id) as Message
  for (const node of [...own.holders.keys()]) queue.setHolder(own, node, null)
  finish(queue, own)
  const { place } = own
  expect(place?.segment.refs).toBeGreaterThan(0)
  time.advance(200)
  expect(place?.segment.refs).toBe(0)
  await spool.close()
})

test('a copy of a lower title than the fate is refused', async () => {
  const { queue, spool } = await open()
  const { id } = await keep(queue, 'x\r\n', { owner: C, term: 3 })
  queue.forgetCopy(id)
  expect(queue.copyCount).toBe(0)
  expect(keep(queue, 'x\r\n', { id, term: 2 })).rejects.toThrow('term 3')
  await spool.close()
})

test('a message that is final when it is handed over ends, and its fate names the new owner', async () => {
  const { queue, spool } = await open()
  queue.mirror = new FakeMirror()
  const message = await accept(queue, 'x\r\n')
  queue.setHolder(message, B, 'kept')
  finish(queue, message)
  expect([...queue.owed()].length).toBe(1)
  await queue.handOver(message, B, 2)
  expect([...queue.owed(), ...queue.copies(), ...queue.messages()]).toEqual([])
  expect(queue.fate(message.id)).toMatchObject({ term: 2, owner: B, states: ended('done') })
  await spool.close()
})

test('how a message ended is remembered when one of its holders was removed: it may have handed it on', async () => {
  const first = await open()
  const message = await accept(first.queue, 'y')
  first.queue.setHolder(message, B, 'kept')
  finish(first.queue, message)
  await first.queue.synced()
  message.mayBeElsewhere = true
  first.queue.setHolder(message, B, null)
  expect([...first.queue.owed()]).toEqual([])
  expect(first.queue.fate(message.id)).toMatchObject({ term: 1, owner: first.queue.node })
  // Removed while there is something left to do, and all ends after a restart.
  const other = await accept(first.queue, 'z')
  first.queue.setHolder(other, B, 'kept')
  other.mayBeElsewhere = true
  first.queue.setHolder(other, B, null)
  first.fates.close()
  const second = await first.again()
  const again = second.queue.get(other.id) as Message
  finish(second.queue, again)
  expect(second.queue.fate(other.id)?.states).toEqual(['done'])
  second.fates.close()
  await second.spool.close()
})

test('a fate is known to the next process', async () => {
  const dir = join(root, String(++directories))
  mkdirSync(dir)
  const time = new ManualClock()
  const store = openDatabase(join(dir, 'state.db'), {
    synchronous: 'NORMAL',
    migrations: STATE_MIGRATIONS,
    clock: time,
    observer: new Observer(time, () => {}),
  })
  const deps = { clock: time, keepMs: WEEK_MS }
  const first = new Fates(store, deps)
  const fate = { id: ids.next(), term: 2, owner: B, states: ended('done') }
  expect(first.get(fate.id)).toBeNull()
  first.add(fate, () => {})
  first.close()
  expect(first.get(fate.id)).toEqual(fate)
  expect(new Fates(store, deps).get(fate.id)).toEqual(fate)
  store.close()
})

// ---- holders ----

test('a final message stays known to its last holder: across restarts, without its body', async () => {
  const first = await open()
  const message = await accept(first.queue, 'y'.repeat(20_000))
  first.queue.setHolder(message, B, 'kept')
  first.queue.setHolder(message, C, 'sent')
  finish(first.queue, message)
  expect([first.queue.size, [...first.queue.owed()].length]).toEqual([0, 1])
  expect(message.pieces.length).toBe(1)
  await first.queue.synced()
  expect(message.pieces).toEqual([])
  const second = await first.again()
  const owed = [...second.queue.owed()]
  expect(owed.map(({ id }) => id)).toEqual([message.id])
  expect([...(owed[0]?.holders ?? [])]).toEqual([
    [B, 'kept'],
    [C, 'sent'],
  ])
  second.queue.setHolder(owed[0] as Message, B, null)
  const third = await second.again()
  const [rest] = [...third.queue.owed()]
  expect([...(rest?.holders.keys() ?? [])]).toEqual([C])
  third.queue.setHolder(rest as Message, C, null)
  expect([...third.queue.owed()]).toEqual([])
  const fourth = await third.again()
  expect([...fourth.queue.owed()]).toEqual([])
  expect(fourth.queue.size).toBe(0)
  await fourth.spool.close()
})

/** As the mirror's acknowledgement, and later its word that it forgot. */
function copiedTo(node: NodeId): FakeMirror {
  const mirror = new FakeMirror()
  mirror.holders = [node]
  mirror.answer = async () => ({ kind: 'kept', by: node })
  return mirror
}

/** Records of who holds what, since the spool was made. */
function holderRecords(dir: string): readonly { readonly type: number; readonly text: string }[] {
  const names = readdirSync(dir).filter((name) => name.endsWith('.seg'))
  return names.flatMap((name) => {
    const data = readFileSync(join(dir, name))
    const said = readSegmentHeader(data.subarray(0, 64))
    if (typeof said === 'string') return []
    return [...readRecords(data, said.generation)].flatMap((found) =>
      'gapAt' in found || (found.type !== RECORD.holders && found.type !== RECORD.holdings)
        ? []
        : [{ type: found.type, text: found.payload.toString() }],
    )
  })
}

/** The same disk after a kill -9 at this moment: what waits in the process is gone. */
async function killed(node: Opened): Promise<Opened> {
  await node.spool.written()
  const dir = join(root, String(++directories))
  cpSync(node.dir, dir, { recursive: true })
  return await open({}, dir)
}

test('who has a copy costs one record for many messages, and none for those that are over', async () => {
  const first = await open()
  first.queue.mirror = copiedTo(B)
  const waiting: Message[] = []
  for (let count = 0; count < 30; count += 1) {
    const message = await accept(first.queue, 'x\r\n')
    expect([...message.holders]).toEqual([[B, 'kept']])
    if (count % 2 === 0) waiting.push(message)
    else finish(first.queue, message)
  }
  first.spool.beforeLazySync()
  await first.spool.written()
  const [record, ...more] = holderRecords(first.dir)
  expect([record?.type, more.length]).toEqual([RECORD.holdings, 0])
  const named = waiting.map(({ id }) => id)
  expect(JSON.parse(record?.text ?? '')).toEqual({ node: B, state: 'kept', ids: named })
  for (const message of waiting) finish(first.queue, message)
  await first.queue.synced()
  for (const message of [...first.queue.owed()]) first.queue.setHolder(message, B, null)
  first.spool.beforeLazySync()
  first.spool.beforeLazySync()
  await first.spool.written()
  const records = holderRecords(first.dir)
  expect(records.length).toBe(2)
  expect(JSON.parse(records[1]?.text ?? '')).toMatchObject({ node: B, state: null })
  const { queue, spool } = await first.again()
  expect([queue.size, [...queue.owed()].length]).toEqual([0, 0])
  await spool.close()
})

test('before that record a kill takes only what the holder says again, never who it is', async () => {
  const first = await open()
  first.queue.mirror = copiedTo(B)
  const message = await accept(first.queue, 'x\r\n')
  const early = await killed(first)
  expect([...(early.queue.get(message.id)?.holders ?? [])]).toEqual([[B, 'sent']])
  first.spool.beforeLazySync()
  const late = await killed(first)
  expect([...(late.queue.get(message.id)?.holders ?? [])]).toEqual([[B, 'kept']])
  finish(first.queue, message)
  await first.queue.synced()
  first.queue.setHolder(message, B, null)
  expect([...first.queue.owed()]).toEqual([])
  // It asks once more.
  const again = await killed(first)
  expect([...again.queue.owed()].map(({ id }) => id)).toEqual([message.id])
  first.spool.beforeLazySync()
  const over = await killed(first)
  expect([...over.queue.owed()]).toEqual([])
  // One that nobody knew of is in the list at once.
  const other = await accept(first.queue, 'y\r\n')
  first.queue.setHolder(other, C, 'kept')
  const found = await killed(first)
  expect(found.queue.get(other.id)?.holders.get(C)).toBe('kept')
  for (const { spool } of [first, early, late, again, over, found]) await spool.close()
})

test('who forgot a message is not struck off the list of the same one when it is released anew', async () => {
  const first = await open()
  const mirror = copiedTo(B)
  first.queue.mirror = mirror
  const message = await accept(first.queue, 'x\r\n')
  finish(first.queue, message)
  await first.queue.synced()
  first.queue.setHolder(message, B, null)
  // It gets the new copy, and its answer is lost.
  mirror.answer = async () => ({ kind: 'alone', why: 'it said nothing' })
  const draft = first.queue.draft(message.id)
  draft.add(Buffer.from('x\r\n'))
  const committing = first.queue.commit(draft, aCommit(message.id, 3), null)
  // In the time of its sync.
  first.spool.beforeLazySync()
  await committing
  first.spool.beforeLazySync()
  for (const node of [await killed(first), await first.again()]) {
    // It was delivered once, says the spool: it is over, and B may have the new copy.
    expect([...node.queue.owed()].map(({ holders }) => [...holders.keys()])).toEqual([[B]])
    await node.spool.close()
  }
})

test('what is owed stays known when all around it is used again, and does not pin the disk', async () => {
  const first = await open()
  const owed: MessageId[] = []
  for (let turn = 0; turn < 60; turn++) {
    const message = await accept(first.queue, 'o'.repeat(1_000))
    first.queue.setHolder(message, B, 'kept')
    finish(first.queue, message)
    owed.push(message.id)
    await pass(first.queue, 20)
  }
  expect(first.spool.segmentCount).toBeLessThan(40)
  const second = await first.again()
  expect([...second.queue.owed()].map(({ id }) => id).sort()).toEqual(owed.toSorted())
  expect(second.queue.size).toBe(0)
  await second.spool.close()
}, 30_000)

test('copies do not pin the disk either: they are copied forward, and survive that', async () => {
  const first = await open()
  const kept: MessageId[] = []
  for (let turn = 0; turn < 60; turn++) {
    const copy = await keep(first.queue, 'c'.repeat(1_000), { recipients: 2, term: 2 })
    first.queue.markCopy(copy.id, 'try', { r: [0] })
    first.queue.markCopy(copy.id, 'done', { r: [1] })
    kept.push(copy.id)
    await pass(first.queue, 20)
  }
  expect(first.spool.segmentCount).toBeLessThan(40)
  const second = await first.again()
  expect([...second.queue.copies()].map(({ id }) => id).sort()).toEqual(kept.toSorted())
  for (const copy of second.queue.copies()) {
    expect(copy).toMatchObject({ owner: B, term: 2 })
    expect(statesOf(copy)).toEqual(['trying', 'done'])
    expect(await bytesOf(second.queue, copy)).toBe('c'.repeat(1_000))
  }
  await second.spool.close()
}, 30_000)

test('a mark of a copy outlives its COMMIT also when it is written before that is durable', async () => {
  const waiting: (() => void)[] = []
  let isHeld = false
  const disk: Disk = {
    ...systemDisk,
    sync: (_, done) => (isHeld ? waiting.push(() => done(null)) : done(null)),
  }
  const { queue, spool } = await open({ disk })
  const early = await keep(queue, 'x\r\n')
  await until(() => spool.segmentCount > 4)
  isHeld = true
  const filler = queue.draftCopy(ids.next())
  const fill = (): void => {
    for (let count = 0; count < 7; count += 1) filler.add(Buffer.alloc(8_000))
  }
  // The COMMIT comes into a segment that is not durable yet, its mark into the one behind that.
  fill()
  fill()
  const id = ids.next()
  const keeping = keep(queue, 'copy\r\n', { id })
  fill()
  queue.forgetCopy(id)
  await until(() => waiting.length > 0)
  isHeld = false
  for (const run of waiting) run()
  const copy = await keeping
  await queue.synced()
  const [commit] = copy.commits
  expect(commit?.segment).not.toBe(early.place?.segment)
  expect([...(commit?.segment.guardedBy ?? [])].map(({ guards }) => guards.size)).toEqual([1])
  filler.abort()
  await spool.close()
})

test('a title outlives the record that gave it', async () => {
  const first = await open()
  const titles = new Map<MessageId, readonly [NodeId, number]>()
  for (let turn = 0; turn < 60; turn++) {
    const { id } = await keep(first.queue, 't'.repeat(1_000))
    if (turn % 2 === 0) await first.queue.adopt([{ id, term: 2 }])
    else first.queue.setOwner(id, C, 3)
    titles.set(id, turn % 2 === 0 ? [A, 2] : [C, 3])
    await pass(first.queue, 20)
  }
  const { queue, spool } = await first.again()
  for (const [id, title] of titles) {
    const message = queue.get(id) ?? queue.copy(id)
    expect([message?.owner, message?.term]).toEqual([...title])
  }
  await spool.close()
}, 30_000)

test('a body that somebody reads is not overwritten when its message ends', async () => {
  const { queue, spool } = await open()
  const copy = await keep(queue, 'r'.repeat(9_000))
  copy.pins += 1
  const body = copy.body()
  queue.forgetCopy(copy.id)
  await pass(queue, 200)
  const chunks: Uint8Array[] = []
  for await (const chunk of queue.read(body)) chunks.push(chunk)
  copy.pins -= 1
  expect(Buffer.concat(chunks).toString()).toBe('r'.repeat(9_000))
  await spool.close()
})

test('who is to forget a copy is told once the marks are durable, never before', async () => {
  const waiting: (() => void)[] = []
  let isHeld = false
  const disk: Disk = {
    ...systemDisk,
    sync: (_, done) => (isHeld ? waiting.push(() => done(null)) : done(null)),
  }
  const { queue, spool } = await open({ disk })
  const mirror = new FakeMirror()
  queue.mirror = mirror
  const message = await accept(queue, 'x\r\n')
  queue.setHolder(message, B, 'kept')
  isHeld = true
  finish(queue, message)
  const synced = queue.synced()
  await until(() => waiting.length > 0)
  expect(mirror.settledIds).toEqual([])
  isHeld = false
  for (const run of waiting) run()
  await synced
  expect(mirror.settledIds).toEqual([message.id])
  await spool.close()
})

test('mail without holders is forgotten at once', async () => {
  const { queue, spool } = await open()
  const mirror = new FakeMirror()
  queue.mirror = mirror
  finish(queue, await accept(queue, 'x\r\n'))
  expect([[...queue.owed()].length, queue.size, mirror.markedOf.length]).toEqual([0, 0, 0])
  await spool.close()
})

// ---- the seam at the accept ----

type Fake = {
  readonly id: MessageId
  readonly pieces: string[]
  commit: Commit | null
  body: string
  isAborted: boolean
  holders: NodeId[]
}

class FakeMirror implements Mirror {
  readonly begun: Fake[] = []
  /** Owners of messages of which there was something to tell. */
  readonly markedOf: NodeId[] = []
  readonly settledIds: MessageId[] = []
  holders: NodeId[] = []
  answer: (queue: Fake) => Promise<Copied> = async () => ({ kind: 'alone', why: 'nobody is there' })
  readonly #read: ((body: ReturnType<Message['body']>) => AsyncIterable<Uint8Array>) | null

  constructor(queue: Queue | null = null) {
    this.#read = queue === null ? null : (body) => queue.read(body)
  }

  begin(id: MessageId): Copying | null {
    const fake: Fake = {
      id,
      pieces: [],
      commit: null,
      body: '',
      isAborted: false,
      holders: [...this.holders],
    }
    this.begun.push(fake)
    return {
      get holders() {
        return fake.holders
      },
      piece: (bytes) => fake.pieces.push(Buffer.from(bytes).toString('latin1')),
      commit: async (commit, body) => {
        fake.commit = commit
        if (this.#read !== null) {
          for await (const chunk of this.#read(await body()))
            fake.body += Buffer.from(chunk).toString('latin1')
        }
        return await this.answer(fake)
      },
      abort: () => {
        fake.isAborted = true
      },
    }
  }

  marked({ owner }: Message): void {
    this.markedOf.push(owner)
  }

  settled({ id }: Message): void {
    this.settledIds.push(id)
  }
}

test('a body goes to the mirror piece by piece before its memory is used again, then the COMMIT', async () => {
  const { queue, spool } = await open()
  const mirror = new FakeMirror(queue)
  mirror.holders = [B]
  mirror.answer = async () => ({ kind: 'kept', by: B })
  queue.mirror = mirror
  const id = ids.next()
  const draft = queue.draft(id)
  for (const letter of ['a', 'b']) {
    const block = draft.block().subarray(0, 30_000).fill(letter)
    draft.add(block, true)
    await spool.written()
  }
  const message = await queue.commit(draft, aCommit(id, 60_000), null)
  const [copying] = mirror.begun
  expect(copying?.pieces).toEqual(['a'.repeat(30_000), 'b'.repeat(30_000)])
  expect(copying?.body).toBe('a'.repeat(30_000) + 'b'.repeat(30_000))
  expect(copying?.commit).toMatchObject({ owner: A, term: 1, holders: [B], pieces: 2 })
  expect([...message.holders]).toEqual([[B, 'kept']])
  expect(PIECE_BYTES).toBeGreaterThan(30_000)
  await spool.close()
})

test('a commit is answered when it is durable here and there', async () => {
  const { queue, spool } = await open()
  const mirror = new FakeMirror()
  const acknowledged = Promise.withResolvers<Copied>()
  mirror.answer = () => acknowledged.promise
  queue.mirror = mirror
  let isAnswered = false
  const committing = accept(queue, 'x\r\n').then((message) => {
    isAnswered = true
    return message
  })
  await until(() => mirror.begun[0]?.commit != null)
  await spool.synced()
  expect([isAnswered, queue.size]).toEqual([false, 0])
  acknowledged.resolve({ kind: 'kept', by: C })
  const message = await committing
  expect(message.holders.get(C)).toBe('kept')
  await spool.close()
})

test('a second candidate that got bytes after the COMMIT was written is a holder after a restart too', async () => {
  const first = await open()
  const mirror = new FakeMirror()
  mirror.holders = [B]
  mirror.answer = async (fake) => {
    fake.holders.push(C)
    return { kind: 'kept', by: C }
  }
  first.queue.mirror = mirror
  const { id } = await accept(first.queue, 'x\r\n')
  const { queue, spool } = await first.again()
  expect([...(queue.get(id)?.holders ?? [])]).toEqual([
    [B, 'sent'],
    [C, 'kept'],
  ])
  await spool.close()
})

test('alone: with `prefer` it is taken and counted; alone in the world it is not even counted', async () => {
  for (const [rule, missed] of [
    ['prefer', 1],
    ['none', 0],
  ] as const) {
    const { queue, spool, observer } = await open({ rule })
    queue.mirror = new FakeMirror()
    await accept(queue, 'x\r\n')
    expect([queue.size, observer.count('unreplicated_accepts_total')]).toEqual([1, missed])
    await spool.close()
  }
})

test('alone with `require`: the client is told to come again, and nothing comes back', async () => {
  const first = await open({ rule: 'require' })
  const mirror = new FakeMirror()
  first.queue.mirror = mirror
  const error = await accept(first.queue, 'x\r\n').catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(AloneError)
  expect(mirror.begun[0]?.isAborted).toBe(true)
  expect(first.queue.size).toBe(0)
  const { queue, spool } = await first.again()
  expect(queue.size).toBe(0)
  await spool.close()
})

test('what was taken back stays back, however much passes over the spool', async () => {
  let rule: CopyRule = 'require'
  const first = await open({
    get rule() {
      return rule
    },
  })
  const { queue: before } = first
  // Pins the segment of the COMMIT that is void, so that it stays on the disk.
  rule = 'none'
  const pin = await accept(before, 'pin\r\n')
  pin.pins += 1
  const mirror = new FakeMirror()
  mirror.answer = async () => {
    // So the ABORT comes to stand in another segment.
    before.mirror = null
    await pass(before, 20)
    rule = 'require'
    return { kind: 'alone', why: 'nobody is there' }
  }
  before.mirror = mirror
  expect(await accept(before, 'void\r\n').catch((thrown: unknown) => thrown)).toBeInstanceOf(
    AloneError,
  )
  rule = 'none'
  await pass(before, 300)
  const { queue, spool } = await first.again()
  expect([...queue.messages()].map(({ id }) => id)).toEqual([pin.id])
  await spool.close()
})

test('a sync that fails ends the copying too, and the client is not told 250', async () => {
  let fails = false
  const disk: Disk = {
    ...systemDisk,
    sync: (_, done) => done(fails ? new Error('EIO') : null),
  }
  const { queue } = await open({ disk })
  const mirror = new FakeMirror()
  mirror.answer = async () => ({ kind: 'kept', by: B })
  queue.mirror = mirror
  fails = true
  const error = await accept(queue, 'x\r\n').catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(StoreError)
  expect(mirror.begun[0]?.isAborted).toBe(true)
  expect(queue.size).toBe(0)
})

test('a body that is given up is given up at the mirror', async () => {
  const { queue, spool } = await open()
  const mirror = new FakeMirror()
  queue.mirror = mirror
  const draft = queue.draft(ids.next())
  draft.add(Buffer.from('x'))
  draft.abort()
  expect(mirror.begun[0]?.isAborted).toBe(true)
  await spool.close()
})

test('a mark is something to tell the holders, but not that the bytes are in the quarantine', async () => {
  const { queue, spool } = await open()
  const mirror = new FakeMirror()
  mirror.holders = [B]
  queue.mirror = mirror
  const message = await accept(queue, 'x\r\n')
  queue.mark('defer', message, [0], { at: 1_060_000, attempts: 1 })
  expect(mirror.markedOf).toEqual([A])
  queue.mark('hold', message, [0])
  expect(mirror.markedOf).toEqual([A])
  await spool.close()
})

test('a release of a message with an earlier title is above it, and its holders stay known', async () => {
  const first = await open()
  const { queue } = first
  queue.mirror = null
  const id = ids.next()
  const kept = queue.draftCopy(id)
  kept.add(Buffer.from('held\r\n'))
  const held = [freshRecipient('held'), freshRecipient('done')]
  const copy = await queue.keep(kept, { ...ofB(id, 6, 2), recipients: held })
  expect(copy.term).toBe(1)
  const draft = queue.draft(id)
  draft.add(Buffer.from('held\r\n'))
  const recipients = [freshRecipient('queued'), freshRecipient('held')]
  const released = await queue.commit(
    draft,
    { ...aCommit(id, 6, 2), heldMoved: true, recipients },
    null,
  )
  expect(released).toMatchObject({ owner: A, term: 2 })
  expect(statesOf(released)).toEqual(['queued', 'done'])
  expect([...released.holders.keys()]).toEqual([B])
  const after = await first.again()
  expect([after.queue.size, after.queue.copyCount]).toEqual([1, 0])
  expect(statesOf(after.queue.get(id))).toEqual(['queued', 'done'])
  await after.spool.close()
})

// ---- laws ----

const RECIPIENT = fc
  .record({
    state: fc.constantFrom<RecipientState>(
      'held',
      'queued',
      'deferred',
      'inDoubt',
      'trying',
      'dropped',
      'failed',
      'done',
    ),
    attempts: fc.nat(2),
    nextTryMs: fc.nat(2),
    lastReply: fc.constantFrom(null, '', '451 a', '451 b'),
    doubtful: fc.boolean(),
    warned: fc.boolean(),
  })
  .map((recipient) => joined(recipient, recipient))

test('two accounts of a recipient merge in any order, and often, to the same', () => {
  fc.assert(
    fc.property(RECIPIENT, RECIPIENT, RECIPIENT, (a, b, c) => {
      expect(joined(a, b)).toEqual(joined(b, a))
      expect(joined(joined(a, b), c)).toEqual(joined(a, joined(b, c)))
      expect(joined(a, a)).toEqual(a)
      const { state } = joined(a, b)
      expect(state === 'done').toBe(a.state === 'done' || b.state === 'done')
      expect(isFinal(state)).toBe(isFinal(a.state) || isFinal(b.state))
    }),
    { numRuns: 2_000 },
  )
})
