/**
 * The second body of held mail. Its owner sees to it that another node has a sealed file too, and
 * its row names who has; a holder tells the owner what it has, shows what a dead owner could not
 * tell of, and removes its file when the owner's row says that nobody wants it any more, never by a
 * clock of its own (design: mail.md, Release once).
 */
import type { Clock, Timer } from '../../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId } from '../../base/ids.ts'
import { PIECE_BYTES } from '../../base/limits.ts'
import type { Observer } from '../../base/observe.ts'
import { fieldsOf, isCount } from '../../base/raw.ts'
import type { Bodies } from '../../store/bodies.ts'
import { type HeldMail, readHeldMail } from '../../store/held-mail.ts'
import type { Quarantine } from '../../store/quarantine.ts'
import type { Answered, HeldNodes } from './nodes.ts'

/** To the owner: what the asker has, and what it has no more. */
export const HAVE = 'held.have'
/** To a candidate: to fetch a body and to keep it. */
export const KEEP = 'held.keep'
/** To whoever has it: a body. */
export const BODY = 'held.body'

const STEP_MS = 5_000
/** While there is more to do the next step comes sooner. */
const NEXT_STEP_MS = 200
/** Bodies that are copied in one step. */
const HEALED_MAX = 40
/** Files that are looked at in one step. */
const LOOKED_MAX = 500
const AT_ONCE = 4
/** Ids of one question. */
const NAMED_MAX = 1_000
/** The row of a fresh mail is on its way so long, and its holders with it. */
const SETTLED_MS = 10_000
const COPY_MS = 60_000
const META_BYTES_MAX = 32 * 1024 * 1024

export type HeldShareDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly quarantine: Quarantine
  readonly bodies: Pick<Bodies, 'write' | 'read' | 'meta' | 'has' | 'remove' | 'list'>
  readonly nodes: HeldNodes
  /** A node has said what it has of an own mail: that owned it before, perhaps. */
  readonly spoke: (id: MessageId, from: NodeId) => void
}

export class HeldShare {
  readonly #deps: HeldShareDeps
  /** Sealed files for other owners; by wall ms since when. */
  readonly #files = new Map<MessageId, number>()
  /** Of these nobody has told a row yet. */
  readonly #rowless = new Set<MessageId>()
  /** Rows changed: what they say about a file here is to be looked at. */
  readonly #changed = new Set<MessageId>()
  /** Files that rows name and that are not here. */
  readonly #lost = new Set<MessageId>()
  /** Who is being asked to keep a body, and may have it before the row says so. */
  readonly #asking = new Map<MessageId, NodeId>()
  /** Where the search for mail that nobody else has goes on. */
  #healedTo = ''
  #alone = 0
  /** Rows changed since the last look, and who stayed then. */
  #isDirty = true
  #stayed = ''
  #timer: Timer | null = null
  #running: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(deps: HeldShareDeps) {
    this.#deps = deps
  }

  /** After the rebuild of the quarantine, and before copies come in. */
  start(): void {
    const { quarantine, bodies, clock } = this.#deps
    const files = new Set(bodies.list())
    const owners = quarantine.read((list) => list.ownerOfAll())
    for (const id of files) {
      const owner = owners.get(id)
      if (owner === quarantine.node.id) continue
      this.#files.set(id, clock.wallMs())
      if (owner === undefined) this.#rowless.add(id)
      else this.#changed.add(id)
    }
    for (const id of quarantine.read((list) => list.heldBy(quarantine.node.id))) {
      if (!files.has(id)) this.#lost.add(id)
    }
    quarantine.onChanged((ids, origin) => {
      this.#isDirty = true
      for (const id of ids) if (this.#files.has(id)) this.#changed.add(id)
      if (origin === 'own') return
      this.#lookForOwn(ids)
      this.#lookForOthers(ids)
    })
    this.#plan(STEP_MS)
  }

  /** Resolves when a step that runs has ended. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#running
  }

  /** A sealed file of a mail of another owner is durable here. */
  sealed({ row: { id } }: { readonly row: Pick<HeldMail['row'], 'id'> }): void {
    this.#files.set(id, this.#deps.clock.wallMs())
    this.#lost.delete(id)
    if (this.#deps.quarantine.isKnown(id)) this.#changed.add(id)
    else this.#rowless.add(id)
  }

  /** The mail is this node's own now: its file is no copy any more. */
  owned(id: MessageId): void {
    this.#files.delete(id)
    this.#rowless.delete(id)
    this.#changed.delete(id)
  }

  /** A sealed file of a mail of another owner is here. */
  has(id: MessageId): boolean {
    return this.#files.has(id)
  }

  /**
   * Every other node that may have the body and take the mail over. One that is dead for sure comes
   * back without having heard of this node, and asks before it does so.
   */
  around(id: MessageId): readonly NodeId[] {
    const { quarantine, nodes } = this.#deps
    const entry = quarantine.one(id)
    const asked = this.#asking.get(id)
    const named = [
      ...(entry?.row.holders ?? []).map((node) => node.id),
      ...(entry?.perhaps ?? []),
      ...(asked === undefined ? [] : [asked]),
    ]
    return named.filter((node) => {
      const { standing } = nodes.absence(node)
      return standing === 'here' || standing === 'silent'
    })
  }

  /** Own mail that is held and that no other living node was known to have at the last look. */
  get alone(): number {
    return this.#alone
  }

  /**
   * An own mail whose file is missing is fetched from whoever has it. False: nobody in reach has.
   * @throws StoreError when it cannot be written
   */
  async restore(id: MessageId): Promise<boolean> {
    const { quarantine, nodes, bodies } = this.#deps
    if (bodies.has(id)) {
      quarantine.markBodyThere(id)
      return true
    }
    const holders = quarantine.one(id)?.row.holders.map((node) => node.id) ?? []
    const living = holders.filter((node) => nodes.absence(node).standing === 'here')
    for (const node of nodes.ranked(id, living)) {
      if ((await this.#fetch(id, node, quarantine.node.id)) === null) continue
      quarantine.markBodyThere(id)
      return true
    }
    return false
  }

  // ---- what others ask ----

  /** `held.keep`: fetches the body from who asks, and says so when it is durable. */
  async keep(value: unknown, from: NodeId): Promise<unknown> {
    const id = idOf(fieldsOf(value)['id'])
    if (!this.#files.has(id)) {
      const mail = await this.#fetch(id, from, from)
      if (mail === null) return { kept: false }
      this.sealed(mail)
    }
    return { kept: true }
  }

  /** `held.have`: a holder says what it has of this node's mail, and what it has lost. */
  async have(value: unknown, from: NodeId): Promise<unknown> {
    const { has, lost } = fieldsOf(value)
    const { quarantine } = this.#deps
    const mine = quarantine.node.id
    const [kept, gone] = [idsOf(has), idsOf(lost)]
    quarantine.together(() => {
      for (const id of kept) {
        if (quarantine.read((list) => list.ownerOf(id)) === mine)
          quarantine.setHolding(id, { has: [from] })
      }
      for (const id of gone) {
        if (quarantine.read((list) => list.ownerOf(id)) === mine)
          quarantine.setHolding(id, { lost: [from] })
      }
    })
    for (const id of [...kept, ...gone]) this.#deps.spoke(id, from)
    return {}
  }

  /**
   * `held.body`: the bytes of a mail of which a sealed file is here; with `whole` what is known of
   * it before them. Null: it is not here. @throws StoreError
   */
  async body(id: MessageId, whole: boolean): Promise<Answered | null> {
    const opened = await this.#deps.bodies.read(id)
    if (opened === null) return null
    const { mail, sizeBytes, pieces } = opened
    if (!whole) return { value: { sizeBytes }, bytes: pieces }
    const { owner, term } = this.#title(id, mail)
    const meta = Buffer.from(JSON.stringify({ ...mail, owner, term }))
    return { value: { sizeBytes, metaBytes: meta.length }, bytes: behind(meta, pieces) }
  }

  #title(id: MessageId, mail: HeldMail): { readonly owner: NodeId; readonly term: number } {
    const { quarantine } = this.#deps
    const entry = quarantine.one(id)
    const owner = entry?.row.owner.id ?? mail.owner ?? quarantine.node.id
    return { owner, term: entry?.term ?? mail.term ?? 1 }
  }

  // ---- steps ----

  #plan(delayMs: number): void {
    if (this.#stopped) return
    this.#timer = this.#deps.clock.after(delayMs, () => {
      this.#running = this.#step().then((isMore) => this.#plan(isMore ? NEXT_STEP_MS : STEP_MS))
    })
  }

  /** True when more is to be done than one step does. Never rejects. */
  async #step(): Promise<boolean> {
    const { observer } = this.#deps
    try {
      await this.#look()
      await this.#tell()
      return await this.#heal()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
      return false
    }
  }

  /**
   * Peers told of own mail: a disk that went back has lost its files too, and has again what was
   * removed since. What is missing is fetched from a holder, and no release is noted before that;
   * what is there again is removed when it is over.
   */
  #lookForOwn(ids: readonly MessageId[]): void {
    const { quarantine, bodies } = this.#deps
    const told = quarantine.read((list) => list.goneOf(quarantine.node.id, ids))
    const wrong = [...told].filter(([id, isGone]) => isGone === bodies.has(id))
    if (wrong.length === 0) return
    quarantine.together(() => {
      for (const [id, isGone] of wrong) {
        if (isGone) quarantine.markBodyThere(id)
        else quarantine.markBodyGone(id)
      }
    })
  }

  /**
   * Peers told of mail of others. Its file is here still when it was this node's own, or when this
   * node took it over apart from its new owner; and it is not here any more when the disk went back.
   */
  #lookForOthers(ids: readonly MessageId[]): void {
    const { quarantine, bodies, clock } = this.#deps
    const { id: here } = quarantine.node
    const others = quarantine.read((list) => list.othersOf(here, ids))
    const unknown = others.filter((id) => !this.#files.has(id))
    for (const id of unknown) if (bodies.has(id)) this.sealed({ row: { id } })
    const beforeMs = clock.wallMs() - SETTLED_MS
    for (const id of quarantine.read((list) => list.namedAt(here, unknown, beforeMs))) {
      if (!this.#files.has(id)) this.#lost.add(id)
    }
  }

  /** What a dead owner could not tell of is shown in its name. */
  async #showOne(id: MessageId): Promise<void> {
    const { quarantine, bodies, nodes } = this.#deps
    const mail = await bodies.meta(id)
    if (mail === null || quarantine.isKnown(id)) return
    if (mail.owner !== undefined && nodes.absence(mail.owner).standing === 'here') return
    quarantine.show(mail)
    this.#rowless.delete(id)
  }

  /** What the rows say about the files here. */
  async #look(): Promise<void> {
    const { quarantine, bodies, clock } = this.#deps
    for (const id of firstOf(this.#rowless)) {
      if (this.#stopped) return
      if (quarantine.isKnown(id)) {
        this.#rowless.delete(id)
        this.#changed.add(id)
      } else if (clock.wallMs() - (this.#files.get(id) ?? 0) >= STEP_MS) await this.#showOne(id)
    }
    for (const id of firstOf(this.#changed)) {
      if (this.#stopped) return
      const entry = quarantine.one(id)
      const isOver = entry === null ? !this.#rowless.has(id) : isUnwanted(entry)
      if (isOver) {
        await bodies.remove(id)
        this.#files.delete(id)
        this.#changed.delete(id)
      } else if (entry?.row.owner.id === quarantine.node.id) this.owned(id)
      // One that names this node needs no word.
      else if (entry?.row.holders.some((node) => node.id === quarantine.node.id)) {
        this.#changed.delete(id)
      }
    }
  }

  /** Owners that live are told what is here and what is lost. */
  async #tell(): Promise<void> {
    const { quarantine, nodes } = this.#deps
    const words = new Map<NodeId, { has: MessageId[]; lost: MessageId[] }>()
    const add = (id: MessageId, what: 'has' | 'lost'): void => {
      const owner = quarantine.read((list) => list.ownerOf(id))
      if (owner === null || owner === quarantine.node.id) return
      if (nodes.absence(owner).standing !== 'here') return
      const word = words.get(owner) ?? { has: [], lost: [] }
      if (word.has.length + word.lost.length < NAMED_MAX) word[what].push(id)
      words.set(owner, word)
    }
    for (const id of this.#changed) add(id, 'has')
    for (const id of this.#lost) add(id, 'lost')
    // Who took a mail over has read by then what this node had decided about it.
    if (words.size > 0) await nodes.taken([...words.keys()])
    for (const [owner, { has, lost: missed }] of words) {
      // It may have come meanwhile.
      const lost = missed.filter((id) => this.#lost.has(id))
      if (!(await this.#ask(owner, HAVE, { has, lost }))) continue
      for (const id of has) this.#changed.delete(id)
      for (const id of lost) this.#lost.delete(id)
    }
  }

  /** Own mail that nobody else has gets a second body; own mail without a file gets it back. */
  async #heal(): Promise<boolean> {
    const { quarantine, nodes, clock } = this.#deps
    const { id: here } = quarantine.node
    const staying = nodes.staying()
    const beforeMs = clock.wallMs() - SETTLED_MS
    const others = staying.join(' ')
    if (!this.#isDirty && this.#alone === 0 && others === this.#stayed) return false
    // A mail that is fresh now is looked at when it is not.
    this.#isDirty = quarantine.read((list) => list.countSince(here, beforeMs)) > 0
    this.#stayed = others
    this.#alone = quarantine.read((list) => list.countAlone(here, staying, beforeMs))
    if (staying.length === 0) return false
    for (const id of quarantine.read((list) => list.missing(here, HEALED_MAX)))
      await this.restore(id)
    const from = { beforeMs, after: this.#healedTo }
    const alone = quarantine.read((list) => list.alone(here, staying, from, HEALED_MAX))
    for (let n = 0; n < alone.length && !this.#stopped; n += AT_ONCE) {
      await Promise.all(alone.slice(n, n + AT_ONCE).map((id) => this.#give(id)))
    }
    const isMore = alone.length === HEALED_MAX
    this.#healedTo = isMore ? (alone.at(-1) ?? '') : ''
    return isMore
  }

  async #give(id: MessageId): Promise<void> {
    const { quarantine, nodes, observer } = this.#deps
    const [node] = nodes.candidates(id)
    if (node === undefined) return
    // From now on it may take the mail over, whatever becomes of the answer.
    this.#asking.set(id, node)
    quarantine.setHolding(id, { perhaps: [node] })
    try {
      const answer = await this.#answerOf(node, KEEP, { id }, COPY_MS)
      if (fieldsOf(answer)['kept'] !== true) return
      const gone = quarantine.one(id)?.row.holders ?? []
      const lost = gone.filter((other) => nodes.absence(other.id).standing === 'removed')
      quarantine.setHolding(id, { has: [node], lost: lost.map((other) => other.id) })
      observer.emit('held.healed', { message: id, peer: node })
    } finally {
      this.#asking.delete(id)
    }
  }

  async #ask(node: NodeId, topic: string, value: unknown): Promise<boolean> {
    return (await this.#answerOf(node, topic, value)) !== null
  }

  /** Null: it did not answer, or refused. */
  async #answerOf(node: NodeId, topic: string, value: unknown, timeoutMs?: number) {
    try {
      return (await this.#deps.nodes.ask(node, topic, value, timeoutMs)) ?? {}
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      return null
    }
  }

  /** The whole message, durably; null: it did not come, or is not what it should be. */
  async #fetch(id: MessageId, node: NodeId, owner: NodeId): Promise<HeldMail | null> {
    const { nodes, bodies } = this.#deps
    try {
      const { value, bytes } = await nodes.fetch(node, BODY, { id, whole: true }, COPY_MS)
      const { sizeBytes, metaBytes } = fieldsOf(value)
      if (!isCount(sizeBytes) || !isCount(metaBytes) || metaBytes > META_BYTES_MAX) return null
      const { head, rest } = await split(bytes, metaBytes)
      const mail = readHeldMail(head.toString(), id)
      if (mail === null || mail.owner !== owner) return null
      await bodies.write(mail, { kind: 'pieces', sizeBytes, pieces: rest })
      return mail
    } catch (error) {
      if (!(error instanceof RefusalError || error instanceof StoreError)) throw error
      return null
    }
  }
}

/** As many as one step looks at; they go to the end, so that all have their turn. */
function firstOf(ids: Set<MessageId>): readonly MessageId[] {
  const some: MessageId[] = []
  for (const id of ids) {
    if (some.length === LOOKED_MAX) break
    some.push(id)
  }
  for (const id of some) {
    ids.delete(id)
    ids.add(id)
  }
  return some
}

/** Its owner has removed it, and nothing of it waits. */
function isUnwanted({ bodyGone, copies }: ReturnType<Quarantine['one']> & object): boolean {
  return (
    bodyGone &&
    copies.every(
      ({ claim, enqueuedMs }) =>
        claim !== null && (claim.kind !== 'release' || enqueuedMs !== null),
    )
  )
}

async function* behind(
  head: Uint8Array,
  pieces: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for (let from = 0; from < head.length; from += PIECE_BYTES) {
    yield head.subarray(from, from + PIECE_BYTES)
  }
  yield* pieces
}

/** The first `length` bytes, and what follows them. */
async function split(
  bytes: AsyncIterable<Uint8Array>,
  length: number,
): Promise<{ readonly head: Buffer; readonly rest: AsyncIterable<Uint8Array> }> {
  const iterator = bytes[Symbol.asyncIterator]()
  const parts: Uint8Array[] = []
  let had = 0
  while (had < length) {
    const { done, value } = await iterator.next()
    if (done === true) break
    // A piece is its reader's only until the next one is asked for.
    parts.push(Uint8Array.from(value))
    had += value.length
  }
  const all = Buffer.concat(parts)
  async function* rest(): AsyncGenerator<Uint8Array> {
    if (all.length > length) yield all.subarray(length)
    for (;;) {
      const { done, value } = await iterator.next()
      if (done === true) return
      yield value
    }
  }
  return { head: all.subarray(0, length), rest: rest() }
}

/** @throws RefusalError invalid */
function idOf(raw: unknown): MessageId {
  const id = typeof raw === 'string' ? parseMessageId(raw) : null
  if (id !== null) return id
  throw new RefusalError(
    'invalid',
    'id',
    'A question of a peer is not valid: id.',
    'Both nodes should run the same version, or one version apart.',
  )
}

/** @throws RefusalError invalid */
function idsOf(raw: unknown): readonly MessageId[] {
  return Array.isArray(raw) ? raw.slice(0, NAMED_MAX).map(idOf) : []
}
