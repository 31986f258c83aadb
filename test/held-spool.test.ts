/** Held mail between the spool and its sealed files: of this node, and of others whose copy it keeps. */
import { afterEach, expect, test } from 'bun:test'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { StoreError } from '../src/base/errors.ts'
import { systemDisk } from '../src/base/files.ts'
import type { MessageId, NodeId, SpoolId } from '../src/base/ids.ts'
import { Holder } from '../src/mail/quarantine/hold.ts'
import { hasReleased, release } from '../src/mail/quarantine/release.ts'
import type { Claim, RecipientState } from '../src/message/rows.ts'
import { NO_FACTS } from '../src/message/verdict.ts'
import type { HeldMail } from '../src/store/held-mail.ts'
import { Queue } from '../src/store/queue.ts'
import { freshRecipient, type Message, type NewCommit } from '../src/store/queued.ts'
import type { Spool } from '../src/store/spool.ts'
import { Room } from './rooms.ts'

const OTHER = '00000000000000bb' as NodeId
const THIRD = '00000000000000cc' as NodeId
const BODY = 'Subject: x\r\n\r\nbody\r\n'
const CLAIM: Claim = { kind: 'release', by: 'ruiz', atMs: 1 }
const clock = new SystemClock()

type House = {
  readonly room: Room
  readonly queue: Queue
  readonly spool: Spool
  readonly sealed: HeldMail[]
  readonly enqueued: Message[]
  readonly holder: Holder
}

const rooms: { readonly room: Room; readonly spool: Spool }[] = []

afterEach(async () => {
  for (const { room, spool } of rooms.splice(0)) {
    await spool.close()
    room.close()
    room.remove()
  }
})

async function house(room = new Room()): Promise<House> {
  const dir = join(room.directory, 'spool')
  mkdirSync(dir, { recursive: true })
  const { observer, bodies, quarantine, live } = room
  const { queue, spool } = await Queue.open(
    {
      dir,
      spoolId: '00000000000000aa' as SpoolId,
      clock,
      observer,
      freeSpace: () => ({ freeBytes: 1e12, totalBytes: 1e12 }),
      segmentBytes: 64 * 1024,
      disk: { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: () => {},
    },
    { clock, observer, node: room.node.id },
  )
  const sealed: HeldMail[] = []
  const holder = new Holder({
    bodies,
    quarantine,
    queue,
    live,
    clock,
    observer,
    sealed: (mail) => sealed.push(mail),
  })
  rooms.push({ room, spool })
  return { room, queue, spool, sealed, enqueued: [], holder }
}

/** The same directory after a crash. */
async function again(before: House): Promise<House> {
  await before.holder.stop()
  await before.spool.written()
  await before.spool.close()
  rooms.pop()
  return await house(before.room.reopened())
}

function commitOf(room: Room, id: MessageId, states: readonly RecipientState[]): NewCommit {
  const { envelope, row } = room.held({ id })
  return {
    envelope,
    prepend: 'Received: here\r\n',
    sizeBytes: BODY.length,
    sha256: '',
    expiresMs: clock.wallMs() + 1e6,
    facts: { ...NO_FACTS, subject: row.subject },
    verdicts: [],
    judgement: null,
    dsn: false,
    heldMoved: false,
    recipients: states.map(freshRecipient),
  }
}

/** A copy of a mail of another node. */
async function kept(
  { room, queue }: House,
  states: readonly RecipientState[] = ['done', 'held', 'held'],
): Promise<MessageId> {
  const id = room.ids.next()
  const draft = queue.draftCopy(id)
  draft.add(Buffer.from(BODY))
  const title = { owner: OTHER, term: 1, holders: [room.node.id], pieces: 1 }
  await queue.keep(draft, { ...commitOf(room, id, states), ...title })
  return id
}

async function idle({ holder, queue }: House): Promise<void> {
  // It resolves when all running writes have ended.
  await holder.stop()
  await queue.synced()
}

const releaseOf = ({ room, queue, enqueued }: House, id: MessageId, places: readonly number[]) =>
  release(id, places, CLAIM, {
    bodies: room.bodies,
    queue,
    clock,
    expireMs: () => 1e6,
    enqueued: (message) => enqueued.push(message),
  })

test('of another node is sealed before its copy counts as dead, and has no row here', async () => {
  const here = await house()
  const id = await kept(here)
  // The owner is done with it before it is sealed: it stays all the same.
  here.queue.forgetCopy(id)
  expect(here.queue.copy(id)).not.toBeNull()
  here.holder.resume()
  await idle(here)
  expect(here.queue.copy(id)).toBeNull()
  expect(here.sealed.map(({ row, owner, term }) => [row.id, owner, term])).toEqual([[id, OTHER, 1]])
  const opened = await here.room.bodies.read(id)
  expect(opened?.mail).toMatchObject({
    owner: OTHER,
    places: [1, 2],
    prepend: 'Received: here\r\n',
  })
  expect(here.room.quarantine.isKnown(id)).toBeFalse()
  // Its file is a copy at the next start, too: the owner says what is held.
  expect(await here.room.quarantine.rebuild(here.room.bodies)).toEqual({ added: 0, damaged: [] })
  expect(here.room.quarantine.isKnown(id)).toBeFalse()
})

test('that a crash left between copy and file is sealed at the next start', async () => {
  const before = await house()
  const id = await kept(before)
  before.queue.forgetCopy(id)
  await before.queue.synced()
  const here = await again(before)
  expect(here.queue.copy(id)).not.toBeNull()
  here.holder.resume()
  await idle(here)
  expect(here.sealed).toHaveLength(1)
  expect(here.room.bodies.list()).toEqual([id])
})

test('of this node names who has a copy, and who may have one', async () => {
  const here = await house()
  const { room, queue, holder } = here
  const id = room.ids.next()
  const draft = queue.draft(id)
  draft.add(Buffer.from(BODY))
  const message = await queue.commit(draft, commitOf(room, id, ['held', 'done', 'done']), null)
  queue.setHolder(message, OTHER, 'kept')
  queue.setHolder(message, THIRD, 'sent')
  holder.hold(message)
  await idle(here)
  const entry = room.quarantine.one(id)
  expect(entry?.row.holders.map((node) => node.id)).toEqual([OTHER])
  expect(entry?.perhaps).toEqual([THIRD])
  expect(here.sealed).toEqual([])
})

test('of this node is forgotten nowhere before its file is there, though the rest has gone out', async () => {
  const before = await house()
  const { room, queue } = before
  const id = room.ids.next()
  const draft = queue.draft(id)
  draft.add(Buffer.from(BODY))
  const message = await queue.commit(draft, commitOf(room, id, ['held', 'queued']), null)
  queue.setHolder(message, OTHER, 'kept')
  queue.mark('done', message, [1])
  Object.assign(message.recipients[1] ?? {}, { state: 'done' })
  queue.settle(message)
  expect(queue.get(id)).toBe(message)
  expect([...queue.owed()]).toEqual([])
  const here = await again(before)
  expect(here.queue.get(id)?.recipients.map(({ state }) => state)).toEqual(['held', 'done'])
  here.holder.resume()
  await idle(here)
  expect(here.room.bodies.list()).toEqual([id])
  // Its holder, who seals its copy too, is told from here on.
  expect([...here.queue.owed()].map((owed) => owed.id)).toEqual([id])
})

test('that was taken over is released from its file by the door of fresh mail, once', async () => {
  const here = await house()
  const id = await kept(here)
  here.holder.resume()
  await idle(here)
  const had = () => [0, 1, 2].map((place) => hasReleased(here.queue, id, place))
  expect(had()).toEqual([false, false, false])
  await releaseOf(here, id, [1])
  expect(had()).toEqual([true, true, false])
  const own = here.queue.get(id)
  expect(own?.owner).toBe(here.room.node.id)
  expect(own?.term).toBe(2)
  expect(own?.recipients.map(({ state }) => state)).toEqual(['done', 'queued', 'held'])
  expect(here.queue.copy(id)).toBeNull()
  await releaseOf(here, id, [1])
  expect(here.enqueued).toHaveLength(1)
  await releaseOf(here, id, [2])
  expect(here.queue.get(id)?.recipients.map(({ state }) => state)).toEqual([
    'done',
    'queued',
    'deferred',
  ])
})

test('whose other recipients still wait with another node is not torn from them', async () => {
  const here = await house()
  const id = await kept(here, ['queued', 'held', 'held'])
  here.holder.resume()
  await idle(here)
  expect(releaseOf(here, id, [1])).rejects.toBeInstanceOf(StoreError)
  expect(here.queue.copy(id)?.recipients[0]?.state).toBe('queued')
  // When its queue is taken over too, it goes.
  await here.queue.adopt([{ id, term: 2 }])
  await releaseOf(here, id, [1])
  expect(here.queue.get(id)?.recipients.map(({ state }) => state)).toEqual([
    'queued',
    'deferred',
    'held',
  ])
})

test('is no longer held from the step on in which its mark is written: a COMMIT copied forward says the same', async () => {
  const here = await house()
  const id = await kept(here, ['queued', 'held', 'held'])
  await here.queue.adopt([{ id, term: 2 }])
  const releasing = releaseOf(here, id, [1])
  expect(here.queue.get(id)?.recipients.map(({ state }) => state)).toEqual([
    'queued',
    'deferred',
    'held',
  ])
  expect(here.enqueued).toEqual([])
  await releasing
  expect(here.enqueued.map((message) => message.id)).toEqual([id])
})

test('that the former owner had in its queue already is left to who takes that over', async () => {
  const here = await house()
  const id = await kept(here)
  here.queue.markCopy(id, 'defer', { r: [1], in: 0, attempts: 0, reply: 'released by ruiz' })
  here.holder.resume()
  await idle(here)
  await releaseOf(here, id, [1])
  expect(here.enqueued).toEqual([])
  expect(here.queue.copy(id)?.recipients[1]?.state).toBe('deferred')
  // It is in no queue of this node.
  expect(hasReleased(here.queue, id, 1)).toBe(false)
})
