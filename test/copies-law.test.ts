/**
 * The law of copies, over a simulated disk: whatever is done in whatever order, and wherever the
 * process is killed or the power cut, what was durable is there again, with at least the title and
 * the marks that it had, in no other role than it has had; and what had ended stays ended.
 */

import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { type MessageId, MessageIds, type NodeId, type SpoolId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import type { RecipientState } from '../src/message/rows.ts'
import type { Copied, Copying, Mirror } from '../src/store/copies.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { Fates } from '../src/store/fates.ts'
import { isAbove } from '../src/store/marks.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { type CopyRule, Queue } from '../src/store/queue.ts'
import { type Commit, isFinal, type Message } from '../src/store/queued.ts'
import { aCommit } from './commits.ts'
import type { Dice } from './sim/dice.ts'
import { SPOOL_DIR, SpoolDisk } from './sim/spool-disk.ts'
import { SimClock, SimProcess, World } from './sim/world.ts'

const A = '00000000000000aa' as NodeId
const OTHERS = ['0000000000000011', '00000000000000bb', '00000000000000cc'] as NodeId[]
const STEPS = 500
/** So small that segments are used again and again. */
const SEGMENT_BYTES = 24 * 1024
const WEEK_MS = 7 * 86_400_000
const FIRST_SEEDS = Array.from({ length: 60 }, (_, at) => at + 1)
/** A final copy is kept anew, and a piece of the new body does not survive: the old one stands. */
const FOUND_SEEDS = [1409]

type Role = 'own' | 'copy' | 'owed' | 'none'

/** How a message stands on the node. */
type Seen = {
  readonly role: Role
  readonly term: number
  readonly owner: NodeId
  readonly states: readonly RecipientState[]
  readonly holders: readonly NodeId[]
}

/** What a test knows of a message. */
type Known = {
  readonly id: MessageId
  readonly body: string
  readonly recipients: number
  /** As it surely is on the disk; null: nobody was told yet. */
  durable: Seen | null
  /** Roles since then. */
  roles: Set<Role>
  /** As it was last in memory. */
  last: Seen | null
  /** The client was told to come again. */
  isVoid: boolean
}

class History {
  readonly world: World
  readonly #dice: Dice
  readonly #disk: SpoolDisk
  readonly #state: StoreDatabase
  readonly #all = new Map<MessageId, Known>()
  readonly #ids: MessageIds
  #queue: Queue
  #process: SimProcess
  #runs = 0
  #rule: CopyRule = 'prefer'
  #answer: Copied = { kind: 'alone', why: 'nobody' }

  constructor(seed: number) {
    this.world = new World(seed)
    this.#dice = this.world.dice.split('history')
    this.#disk = new SpoolDisk(this.world, this.world.dice.split('disk'))
    this.#disk.isScattered = this.#dice.chance(0.5)
    const sqlite = new Database(':memory:')
    for (const { sql } of STATE_MIGRATIONS) sqlite.run(sql)
    this.#process = new SimProcess('a', 0)
    const observer = new Observer(this.#clock(), () => {})
    this.#state = new StoreDatabase(sqlite, 'state.db', observer)
    this.#ids = new MessageIds(A, 1, this.#clock())
    this.#queue = this.#open()
  }

  run(): void {
    for (let step = 0; step < STEPS; step++) {
      this.#act()
      if (this.#dice.chance(0.5)) this.world.runFor(this.#dice.below(20))
      this.#look()
      if (this.#dice.chance(0.02)) this.#crash(this.#dice.chance(0.5))
    }
    this.#crash(false)
  }

  #clock(): SimClock {
    return new SimClock(this.world, this.#process, { skewMs: 0, driftPpm: 0 })
  }

  #open(): Queue {
    this.#runs += 1
    this.#process = new SimProcess('a', this.#runs)
    const clock = this.#clock()
    const observer = new Observer(clock, () => {})
    const fates = new Fates(this.#state, { clock, keepMs: WEEK_MS })
    const { queue } = this.world.wait(
      Queue.open(
        {
          dir: SPOOL_DIR,
          spoolId: '00000000000000bb' as SpoolId,
          clock,
          observer,
          freeSpace: () => this.#disk.space(),
          segmentBytes: SEGMENT_BYTES,
          disk: this.#disk.open(this.#process),
          onFailure: (error) => this.world.violate(error.message),
        },
        { clock, observer, node: A, fates, copies: () => this.#rule },
      ),
    )
    queue.mirror = this.#mirror()
    return queue
  }

  /** Some bodies go nowhere, some to one node, some to two of which the second acknowledges. */
  #mirror(): Mirror {
    return {
      begin: (): Copying => {
        const holders: NodeId[] = this.#dice.chance(0.4) ? [this.#pick(OTHERS)] : []
        return {
          holders,
          piece: () => {},
          commit: async () => {
            const by = this.#pick(OTHERS)
            if (this.#answer.kind === 'alone') return this.#answer
            if (!holders.includes(by)) holders.push(by)
            return { kind: 'kept', by }
          },
          abort: () => {},
        }
      },
      marked: () => {},
      settled: ({ id, holders }) => {
        if (holders.size === 0) return
        // Nobody may be told to forget what could be unknown here after a power cut.
        const known = this.#all.get(id)
        if (known !== undefined) known.durable = this.#see(id)
      },
    }
  }

  #act(): void {
    const queue = this.#queue
    const roll = this.#dice.below(100)
    const own = [...queue.messages()]
    const copies = [...queue.copies()]
    const message = own[this.#dice.below(Math.max(1, own.length))]
    const copy = copies[this.#dice.below(Math.max(1, copies.length))]
    if (roll < 22) this.#accept()
    else if (roll < 36) this.#keep(this.#dice.chance(0.15) ? copy : undefined)
    else if (roll < 56 && message !== undefined) this.#finish(message)
    else if (roll < 68 && copy !== undefined) this.#mark(copy)
    else if (roll < 76 && copy !== undefined) {
      queue.forgetCopy(copy.id)
      this.world.sometimes('discarded')
    } else if (roll < 81 && copy !== undefined) {
      const term = copy.term + this.#dice.below(2)
      const [title] = [{ id: copy.id, term }]
      void queue.adopt([title]).then((taken) => {
        if (taken.length > 0) this.#told(copy.id, { role: 'own', term, owner: A })
      })
      if (term > copy.term - 1) this.world.sometimes('adopted')
    } else if (roll < 85 && message !== undefined) {
      const title = { term: message.term + 1, owner: this.#pick(OTHERS) }
      const role = message.isFinal ? 'none' : 'copy'
      void queue
        .handOver(message, title.owner, title.term)
        .then(() => this.#told(message.id, { role, ...title }))
      this.world.sometimes('handed over')
    } else if (roll < 87 && copy !== undefined) {
      queue.setOwner(copy.id, this.#pick(OTHERS), copy.term + this.#dice.below(2))
    } else if (roll < 94) this.#forgotten()
    else this.#sync()
  }

  #accept(): void {
    const known = this.#fresh()
    const { id, body } = known
    const queue = this.#queue
    this.#rule = this.#dice.chance(0.1) ? 'require' : 'prefer'
    this.#answer = this.#dice.chance(0.5)
      ? { kind: 'alone', why: 'nobody' }
      : { kind: 'kept', by: A }
    const draft = queue.draft(id)
    this.#fill(body, (bytes) => draft.add(bytes))
    const given = commitOf(known)
    queue.commit(draft, given, null).then(
      () => this.#told(id, { role: 'own', term: 1, owner: A }),
      () => {
        known.isVoid = true
        this.world.sometimes('taken back')
      },
    )
    // The mirror answers at once, so the rule of this accept is read in the same step.
  }

  #keep(again: Message | undefined): void {
    const known = again === undefined ? this.#fresh() : this.#all.get(again.id)
    if (known === undefined) return
    const { id, body } = known
    const queue = this.#queue
    const draft = queue.draftCopy(id)
    this.#fill(body, (bytes) => draft.add(bytes))
    if (this.#dice.chance(0.05)) return draft.abort()
    const owner = this.#pick(OTHERS)
    const term = (again?.term ?? 1) + this.#dice.below(2)
    queue.keep(draft, { ...commitOf(known), owner, term, holders: [A], pieces: 1 }).then(
      () => {
        this.#told(id, { role: 'copy', term, owner })
        this.world.sometimes('kept')
      },
      () => this.world.sometimes('refused'),
    )
  }

  #finish(message: Message): void {
    const index = this.#dice.below(message.recipients.length)
    const recipient = message.recipients[index]
    if (recipient === undefined || isFinal(recipient.state)) return
    const kind = this.#pick(['try', 'defer', 'done', 'done', 'fail'] as const)
    this.#queue.mark(kind, message, [index], { at: 1, attempts: recipient.attempts })
    const states = { try: 'trying', defer: 'deferred', done: 'done', fail: 'failed' } as const
    recipient.state = states[kind]
    this.#queue.settle(message)
  }

  #mark({ id, recipients }: Message): void {
    const index = this.#dice.below(recipients.length)
    const kind = this.#pick(['try', 'defer', 'done', 'fail'] as const)
    this.#queue.markCopy(id, kind, { r: [index], at: 1, attempts: 1 })
  }

  /** A holder has said that it forgot its copy. */
  #forgotten(): void {
    for (const message of [...this.#queue.owed()]) {
      const [node] = message.holders.keys()
      if (node === undefined || this.#dice.chance(0.5)) continue
      this.#queue.setHolder(message, node, null)
      this.world.sometimes('owed to nobody')
    }
  }

  /** When it ends, all that was known when it began is on the disk. */
  #sync(): void {
    this.#look()
    const known = [...this.#all.values()].filter(({ durable }) => durable !== null)
    const before = known.map((one) => {
      one.roles = new Set(one.roles)
      return { one, seen: this.#see(one.id), roles: one.roles }
    })
    void this.#queue.synced().then(() => {
      for (const { one, seen, roles } of before) if (one.roles === roles) one.durable = seen
    })
  }

  /** It is durable with this title, in this role; marks that came meanwhile perhaps not. */
  #told(id: MessageId, title: Pick<Seen, 'role' | 'term' | 'owner'>): void {
    const known = this.#all.get(id)
    if (known === undefined || (known.durable !== null && isAbove(known.durable, title))) return
    const states = known.durable?.states ?? Array(known.recipients).fill('queued')
    known.durable = { ...title, states, holders: [] }
    known.roles.add(title.role)
  }

  /** Notes the role of every message. */
  #look(): void {
    for (const known of this.#all.values()) {
      const seen = this.#see(known.id)
      if (seen.role !== 'none') known.last = seen
      known.roles.add(seen.role)
    }
  }

  #see(id: MessageId): Seen {
    const queue = this.#queue
    const owed = [...queue.owed()].find((message) => message.id === id)
    const message = queue.get(id) ?? queue.copy(id) ?? owed ?? null
    const role = queue.get(id) ? 'own' : queue.copy(id) ? 'copy' : owed ? 'owed' : 'none'
    const last = this.#all.get(id)?.last ?? null
    return {
      role,
      term: message?.term ?? last?.term ?? 1,
      owner: message?.owner ?? last?.owner ?? A,
      states: message?.recipients.map(({ state }) => state) ?? last?.states ?? [],
      holders: [...(message?.holders.keys() ?? [])],
    }
  }

  #crash(power: boolean): void {
    this.#look()
    const ends = new Map([...this.#all].map(([id]) => [id, this.#see(id)]))
    this.#process.isAlive = false
    this.#disk.crash(power)
    this.#queue = this.#open()
    this.world.sometimes(power ? 'power cut' : 'killed')
    for (const known of this.#all.values()) this.#check(known, ends.get(known.id) as Seen)
    for (const known of this.#all.values()) {
      const seen = this.#see(known.id)
      // What survived is in a file now, and the first sync of this process makes it durable.
      if (known.durable !== null || seen.role !== 'none') known.durable = seen
      known.roles = new Set([seen.role])
      if (seen.role !== 'none') known.last = seen
    }
    this.world.wait(this.#queue.synced())
  }

  #check(known: Known, before: Seen): void {
    const { id, durable, roles } = known
    const now = this.#see(id)
    const claim = (isTrue: boolean, rule: string): void => {
      if (isTrue) return
      const line = JSON.stringify({ durable, before, now, roles: [...roles] })
      throw new Error(`SIM_SEED=${this.world.seed} ${id}: ${rule} ${line}`)
    }
    if (known.isVoid) claim(now.role === 'none', 'what was refused came back')
    if (durable === null) return
    if (now.role === 'none') {
      claim(durable.role === 'none' || roles.has('none'), 'lost')
      if (before.term > 1 && before.role === 'none') {
        claim(this.#queue.fate(id) !== null, 'nobody knows what became of it')
      }
      return
    }
    // Harmless: a holder is asked once more to forget what it has forgotten.
    if (now.role === 'owed' && durable.role === 'none') return
    // What is adopted when it is final waits for its sync before it is only owed.
    const was = now.role === 'owed' && roles.has('own') ? 'own' : now.role
    claim(roles.has(was) || was === durable.role, 'a role that it never had')
    claim(!isAbove(durable, now), 'an older title')
    for (const [index, state] of durable.states.entries()) {
      const after = now.states[index] ?? 'queued'
      claim(state !== 'done' || after === 'done', 'done is undone')
      claim(!isFinal(state) || isFinal(after), 'final is undone')
    }
    if (now.role === 'owed') {
      this.world.sometimes('owed after a restart')
      return
    }
    claim(this.#bodyOf(id) === known.body, 'another body')
    this.world.sometimes(`${now.role} after a restart`)
    if (now.role === 'own' && now.term > 1) this.world.sometimes('adopted, after a restart')
  }

  #bodyOf(id: MessageId): string {
    const { pieces = [] } = this.#queue.get(id) ?? this.#queue.copy(id) ?? {}
    return pieces
      .map(({ segment, offset, length }) => this.#disk.peek(segment.path, offset, length))
      .map((bytes) => bytes.toString('latin1'))
      .join('')
  }

  #fresh(): Known {
    const id = this.#ids.next()
    const length = 1 + this.#dice.below(this.#dice.chance(0.2) ? 60_000 : 4_000)
    const known: Known = {
      id,
      body: String.fromCharCode(97 + this.#dice.below(26)).repeat(length),
      recipients: 1 + this.#dice.below(3),
      durable: null,
      roles: new Set(),
      last: null,
      isVoid: false,
    }
    this.#all.set(id, known)
    return known
  }

  #fill(body: string, add: (bytes: Uint8Array) => void): void {
    for (let at = 0; at < body.length; at += 16_000) add(Buffer.from(body.slice(at, at + 16_000)))
  }

  #pick<Value>(values: readonly Value[]): Value {
    return values[this.#dice.below(values.length)] as Value
  }
}

function commitOf({ id, body, recipients }: Known): Commit {
  const plain = aCommit(id, body.length, recipients, 0)
  return { ...plain, owner: A, term: 1, holders: [], pieces: 0, expiresMs: 1e12 }
}

test('whatever is done, and wherever it is cut, what was durable is there again', () => {
  const seen = new Map<string, number>()
  const only = process.env['SIM_SEED']
  const seeds = only === undefined ? [...FIRST_SEEDS, ...FOUND_SEEDS] : [Number(only)]
  for (const seed of seeds) {
    const history = new History(seed)
    history.run()
    for (const [what, count] of history.world.seen) seen.set(what, (seen.get(what) ?? 0) + count)
  }
  if (only !== undefined) return
  for (const what of [
    'kept',
    'refused',
    'discarded',
    'adopted',
    'handed over',
    'taken back',
    'owed to nobody',
    'owed after a restart',
    'own after a restart',
    'copy after a restart',
    'adopted, after a restart',
    'killed',
    'power cut',
    'unsynced write lost',
  ]) {
    expect([what, seen.get(what) ?? 0]).not.toEqual([what, 0])
  }
}, 120_000)
