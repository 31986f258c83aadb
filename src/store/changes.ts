/**
 * The one door for what an operator may set: cells that all nodes share, the history of every
 * change, and the snapshot that is in force here. A change of a peer comes in by the same door.
 *
 * Cells of several nodes may not hold together. Then the last configuration that held stays in
 * force as a whole, over a restart too, until a later change mends it.
 */
import { eq } from 'drizzle-orm'
import { type Clock, isoTime } from '../base/clock.ts'
import { assert, RefusalError, StoreError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import {
  CONFIG_KINDS,
  DOMAIN_GROUPS,
  type DomainGroup,
  forceOf,
  isDisputed,
} from '../config/cells.ts'
import { Draft, newDomain, type Trouble } from '../config/compile.ts'
import type { LiveConfig } from '../config/live.ts'
import { type Cell, covers, joinVectors, type Vector, type WriterId } from '../config/merge.ts'
import { DETECTION_KINDS, type DetectionKind } from '../config/rules.ts'
import { checkTogether, isSettingKey, type SettingKey, type Settings } from '../config/schema.ts'
import { SIGNING_KIND } from '../config/signing.ts'
import type { Domain } from '../config/snapshot.ts'
import { wallMsOf } from '../config/stamp.ts'
import { DOMAINS_MAX, domainGroups, readSetting } from '../config/validate.ts'
import {
  type Change,
  CUT_TEXT_CHARS,
  lineOf,
  type Note,
  noteOf,
  objectOf,
  readChange,
  summaryOf,
  undoneMembers,
} from './change-line.ts'
import type { StoreDatabase } from './db.ts'
import { Ledger } from './ledger.ts'
import type { SharedRows } from './shared.ts'
import { VALUE_MAX } from './shared-row.ts'
import { goodCells } from './tables.ts'

export type Stamp = { readonly author: string; readonly atMs: number }

/** A cell that gets a value; null: it is deleted. */
export type CellWrite = {
  readonly kind: string
  readonly key: string
  readonly value: string | null
}
/** Fields that are undefined or left out stay as they are. */
export type DomainPatch = Pick<Domain, 'name'> & Partial<Domain>

export type ChangesDeps = {
  readonly clock: Clock
  readonly observer: Observer
  /** Name of the node that a writer belongs to, for people. */
  readonly nodeNameOf: (writer: WriterId) => string
  /** Why nothing may be changed here now, a whole sentence; null: it may. */
  readonly readOnlyBecause: () => string | null
}

export class Changes {
  readonly #store: StoreDatabase
  readonly #rows: SharedRows
  readonly #live: LiveConfig
  readonly #deps: ChangesDeps
  readonly #ledger: Ledger
  /** What the cells say at this moment, whether it holds or not. */
  readonly #draft = new Draft()
  /** Cells that a transaction touched and the draft does not have yet. */
  readonly #touched = new Set<string>()
  /** Cells in which the stored good configuration is behind the one in force. */
  readonly #unsaved = new Set<string>()
  #troubles: readonly Trouble[] = []

  /** Before `rows.start`; then `load`. */
  constructor(store: StoreDatabase, rows: SharedRows, live: LiveConfig, deps: ChangesDeps) {
    this.#store = store
    this.#rows = rows
    this.#live = live
    this.#deps = deps
    this.#ledger = new Ledger(store, rows, 'change', {
      clock: deps.clock,
      aboutOf: (text) => {
        const change = readChange({ id: '', text })
        return change === null ? null : aboutOf(change.key)
      },
    })
    // A commit may touch several kinds: it is looked at once, when all of it is known.
    for (const kind of CONFIG_KINDS) {
      rows.project(kind, {
        version: 1,
        clear: () => {},
        apply: (key) => this.#touched.add(`${kind}/${key}`),
        forget: (key) => this.#touched.add(`${kind}/${key}`),
      })
      rows.onChange(kind, () => this.#follow())
    }
  }

  /** Puts the stored configuration in force; for the start, after `rows.start`. @throws StoreError */
  load(): void {
    for (const kind of CONFIG_KINDS) {
      for (const { key, state } of this.#rows.list(kind)) {
        if (state.shape === 'cell') this.#draft.put(kind, key, forceOf(kind, key, state).value)
      }
    }
    this.#touched.clear()
    const stored = this.#store.attempt(() => this.#store.query.select().from(goodCells).all())
    const good = new Map(stored.map(({ cell, value }) => [cell, value]))
    for (const cell of new Set([...good.keys(), ...this.#draft.texts.keys()])) {
      if (this.#draft.text(cell) !== (good.get(cell) ?? null)) this.#unsaved.add(cell)
    }
    this.#enforce()
    if (this.#troubles.length > 0) this.#live.swap(usable(good, this.#deps.observer).compile())
  }

  /**
   * For a node that has just learnt everything from the cluster that it joined: what was in force
   * on its way there is no configuration that anybody made. When the newest one does not hold, all
   * of it that does is in force. @throws StoreError
   */
  adopt(): void {
    if (this.#troubles.length === 0) return
    const adopted = usable(this.#draft.texts, this.#deps.observer)
    this.#store.transact(() => {
      const { query } = this.#store
      query.delete(goodCells).run()
      for (const [cell, value] of adopted.texts)
        query.insert(goodCells).values({ cell, value }).run()
    })
    for (const [cell, value] of this.#draft.texts) {
      if (adopted.text(cell) !== value) this.#unsaved.add(cell)
    }
    this.#live.swap(adopted.compile())
  }

  /** Why the newest configuration is not in force here; null: it is. */
  configTrouble(): { readonly message: string; readonly advice: string } | null {
    const [first] = this.#troubles
    if (first === undefined) return null
    const more = this.#troubles.length - 1
    const others = more === 0 ? '' : ` There ${more === 1 ? 'is 1 other' : `are ${more} others`}.`
    return {
      message: `The newest settings do not hold: ${first.refusal.message}${others} The last ones that hold are in force.`,
      advice: first.refusal.advice,
    }
  }

  /**
   * Sets one setting; `raw` as `readSetting` takes it. Durable and in force here when it returns;
   * a value that stands already is no change. `seen`: what `seenOf` gave with the form.
   * @throws RefusalError invalid; conflict when the form is stale, or something else must be mended
   * first; unavailable. @throws StoreError. Then nothing is changed
   */
  setSetting(author: string, key: SettingKey, raw: unknown, seen: string | null = null): void {
    this.#putSetting(author, key, JSON.stringify(readSetting(key, raw)), seen)
  }

  /** Adds a domain, or changes the fields that are given; as `setSetting`. Gives all its fields. */
  putDomain(author: string, patch: DomainPatch, seen: string | null = null): Domain {
    this.mustBeWritable()
    const { name } = patch
    const isNew = this.#draft.text(`domain/${name}`) === null
    if (isNew) this.#refuseTooMany()
    const before = isNew ? newDomain(name) : this.#draft.fields(name)
    const next = { ...before, ...given(patch) }
    const values = domainGroups(next)
    const groups = DOMAIN_GROUPS.filter((group) => isNew || names(patch, group)).flatMap(
      (group) => {
        const key = `${name}/${group}`
        const old = this.#draft.text(`domain/${key}`)
        // Fields that a later version keeps in the same group stay there.
        const value = JSON.stringify(
          group === 'policy' ? { ...objectOf(old), ...(values.policy as object) } : values[group],
        )
        const standing = old ?? JSON.stringify(domainGroups(newDomain(name))[group])
        const isSame = !isNew && value === standing && !this.#isDisputed('domain', key)
        return isSame ? [] : [{ kind: 'domain', key, value, old }]
      },
    )
    if (groups.length === 0) return before
    this.#refuseStale(`domain/${name}`, isNew ? [name] : groups.map(({ key }) => key), seen)
    const notes = isNew
      ? [{ key: `domain/${name}`, before: null, after: summaryOf(next) }]
      : groups.map(({ key, old, value }) => noteOf(`domain/${key}`, old, value))
    this.write(author, [...groups, { kind: 'domain', key: name, value: '{}' }], notes)
    return next
  }

  /**
   * Its signing keys go with it. The cells of its fields stay as they are: an edit on another node
   * that did not see the removal brings the domain back whole, but for these keys.
   * @throws RefusalError notFound, StoreError
   */
  removeDomain(author: string, name: string): void {
    this.mustBeWritable()
    if (this.#draft.text(`domain/${name}`) === null) {
      throw new RefusalError(
        'notFound',
        'name',
        `There is no domain ${JSON.stringify(name.slice(0, 100))}.`,
        'See the list of domains for the names that there are.',
      )
    }
    const gone = [
      ...this.#draft.signingOf(name).map((key) => ({ kind: SIGNING_KIND, key })),
      { kind: 'domain', key: name },
    ]
    const textOf = (cell: string): string | null =>
      cell === `domain/${name}` ? summaryOf(this.#draft.fields(name)) : this.#draft.text(cell)
    this.write(
      author,
      gone.map((cell) => ({ ...cell, value: null })),
      gone
        .map(({ kind, key }) => `${kind}/${key}`)
        .map((key) => ({ key, before: textOf(key), after: null })),
    )
  }

  /**
   * Writes cells over all that is known of them, with their lines in the history, in one commit.
   * For whoever has checked the values. @throws RefusalError when what it touches does not hold
   * afterwards; unavailable. @throws StoreError
   */
  write(author: string, writes: readonly CellWrite[], notes: readonly Note[]): void {
    this.mustBeWritable()
    for (const { kind, key, value } of writes) refuseTooLong(`${kind}/${key}`, value)
    const before = writes.map(({ kind, key }) => this.#draft.text(`${kind}/${key}`))
    for (const { kind, key, value } of writes) this.#draft.put(kind, key, value)
    try {
      this.#refuseTrouble(writes)
      this.#rows.transact(() => {
        for (const { kind, key, value } of writes) this.#rows.write(kind, key, value, author)
        for (const { key, before, after } of notes) this.note(author, key, before, after)
      })
    } catch (error) {
      for (const [index, { kind, key }] of writes.entries()) {
        this.#draft.put(kind, key, before[index] ?? null)
      }
      throw error
    }
    for (const { key } of notes) this.#deps.observer.emit('config.changed', { key, by: author })
  }

  /** Notes a change in the history. Inside a transaction of the rows. */
  note(author: string, key: string, before: string | null, after: string | null): void {
    const atMs = this.#deps.clock.wallMs()
    this.#ledger.append(author, lineOf({ key, before, after }, author, atMs))
  }

  /** @throws RefusalError unavailable, when the clock of this node is not to be trusted */
  mustBeWritable(): void {
    const why = this.#deps.readOnlyBecause()
    if (why === null) return
    throw new RefusalError(
      'unavailable',
      null,
      why,
      'Set the clock (`timedatectl set-ntp true`), or make the change on another node.',
    )
  }

  /** Entries of both lists together. */
  get listedCount(): number {
    return this.#draft.listedCount
  }

  /** Entries of a kind of detection. */
  detectionCount(kind: DetectionKind): number {
    return this.#draft.detectionCount(kind)
  }

  /** Who set a cell last and when; null: it is not there. @throws StoreError */
  stamp(key: string): Stamp | null {
    const [kind, name] = partsOf(key)
    const cell = this.#rows.cell(kind, name)
    return cell === null ? null : stampOf(kind, name, cell)
  }

  /** It was there and was deleted, as long as anybody remembers. @throws StoreError */
  isRemoved(key: string): boolean {
    const [kind, name] = partsOf(key)
    const cell = this.#rows.cell(kind, name)
    return cell !== null && forceOf(kind, name, cell).value === null
  }

  /** Stamps of all settings by `setting/KEY`. @throws StoreError */
  stamps(): ReadonlyMap<string, Stamp> {
    const stamps = new Map<string, Stamp>()
    for (const { kind, key, state } of this.#rows.list('setting')) {
      const stamp = state.shape === 'cell' ? stampOf(kind, key, state) : null
      if (stamp !== null) stamps.set(`${kind}/${key}`, stamp)
    }
    return stamps
  }

  /**
   * What somebody has seen who is shown the setting or domain `key` now: for `seen` of the change
   * that follows. @throws StoreError
   */
  seenOf(key: string): string {
    const [kind, name] = partsOf(key)
    const keys =
      kind === 'domain' ? [name, ...DOMAIN_GROUPS.map((part) => `${name}/${part}`)] : [name]
    const seen = keys
      .map((each): Vector => new Map(this.#rows.cell(kind, each)?.context ?? []))
      .reduce(joinVectors)
    return [...seen].map(([writer, seq]) => `${writer}:${seq}`).join(',')
  }

  /** Newest first, of all nodes; texts longer than `textMax` characters are cut. @throws StoreError */
  history(limit: number, textMax = CUT_TEXT_CHARS): readonly Change[] {
    const cut = (text: string | null) =>
      text !== null && text.length > textMax ? `${text.slice(0, textMax)}…` : text
    return this.#ledger.newest(limit).flatMap((line) => {
      const change = readChange(line)
      if (change === null) return []
      return [{ ...change, before: cut(change.before), after: cut(change.after) }]
    })
  }

  /** One change, whole; null when it is not remembered. @throws StoreError */
  change(id: string): Change | null {
    const line = this.#ledger.line(id)
    return line === null ? null : readChange(line)
  }

  /**
   * Puts back what was before change `id`, as a change of its own. Gives its key.
   * @throws RefusalError notFound; conflict when the cell was changed again since, here or on
   * another node; invalid
   */
  undo(author: string, id: string): string {
    const change = this.change(id)
    if (change === null) {
      throw new RefusalError(
        'notFound',
        'id',
        `There is no change ${JSON.stringify(id.slice(0, 40))}.`,
        'See the history for the changes that there are.',
      )
    }
    const { key, before, after } = change
    this.#refuseChangedSince(change)
    const [kind, name] = partsOf(key)
    if (change.isCut) throw notUndone(key, 'it is too long to be kept in the history')
    if (kind === 'setting' && isSettingKey(name)) this.#putSetting(author, name, before, null)
    else if (kind === 'list' || (DETECTION_KINDS as readonly string[]).includes(kind)) {
      this.write(
        author,
        [{ kind, key: name, value: before }],
        [{ key, before: after, after: before }],
      )
    } else if (kind === 'domain') this.#undoDomain(author, change, name)
    else throw notUndone(key, 'what it changed is kept nowhere')
    return key
  }

  #undoDomain(author: string, { key, before, after }: Change, name: string): void {
    if (!name.includes('/')) {
      if (before === null) return this.removeDomain(author, name)
      return this.write(
        author,
        [{ kind: 'domain', key: name, value: '{}' }],
        [{ key, before: null, after: before }],
      )
    }
    const [domain = ''] = name.split('/')
    const old = this.#draft.text(key)
    const value = undoneMembers(old, before, after) ?? before
    this.write(
      author,
      [
        { kind: 'domain', key: name, value },
        { kind: 'domain', key: domain, value: '{}' },
      ],
      [noteOf(key, old, value)],
    )
  }

  /** Null: back to the initial value, which is then followed when a later version changes it. */
  #putSetting(author: string, key: SettingKey, value: string | null, seen: string | null): void {
    this.mustBeWritable()
    const cell = `setting/${key}`
    const before = this.#draft.text(cell)
    if (before === value && !this.#isDisputed('setting', key)) return
    this.#refuseStale(cell, [key], seen)
    this.write(author, [{ kind: 'setting', key, value }], [{ key: cell, before, after: value }])
  }

  /** Takes over what a commit changed, of this node or of a peer. */
  #follow(): void {
    if (this.#touched.size === 0) return
    const touched = [...this.#touched]
    this.#touched.clear()
    for (const name of touched) {
      const [kind, key] = partsOf(name)
      const cell = this.#rows.cell(kind, key)
      const head = cell === null ? null : forceOf(kind, key, cell)
      const before = this.#draft.text(name)
      this.#draft.put(kind, key, head?.value ?? null)
      if (before !== this.#draft.text(name)) {
        const from =
          head === null ? {} : { by: head.author, node: this.#deps.nodeNameOf(head.writer) }
        this.#deps.observer.emit('config.changed', { key: name, ...from })
      }
      this.#unsaved.add(name)
    }
    this.#enforce()
  }

  /** Swaps in what the cells say, when it holds, and remembers it. */
  #enforce(): void {
    const { observer } = this.#deps
    const before = this.configTrouble()?.message
    this.#troubles = this.#draft.troubles()
    const trouble = this.configTrouble()
    if (trouble !== null) {
      if (trouble.message !== before) observer.emit('config.refused', { cause: trouble.message })
      return
    }
    if (before !== undefined) observer.emit('config.mended')
    const { current } = this.#live
    const next = this.#draft.compile()
    const isNew =
      next.settings !== current.settings ||
      next.domains !== current.domains ||
      next.lists !== current.lists ||
      next.detection !== current.detection ||
      next.signing !== current.signing
    if (isNew) this.#live.swap(next)
    this.#saveGood()
  }

  /** A disk that refuses is no reason not to use what is committed; the next change tries again. */
  #saveGood(): void {
    if (this.#unsaved.size === 0) return
    try {
      this.#store.transact(() => {
        const { query } = this.#store
        for (const cell of this.#unsaved) {
          const value = this.#draft.text(cell)
          if (value === null) query.delete(goodCells).where(eq(goodCells.cell, cell)).run()
          else {
            query
              .insert(goodCells)
              .values({ cell, value })
              .onConflictDoUpdate({ target: goodCells.cell, set: { value } })
              .run()
          }
        }
      })
      this.#unsaved.clear()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
    }
  }

  /** What is touched must hold; what does not hold elsewhere must become less. */
  #refuseTrouble(writes: readonly CellWrite[]): void {
    const touched = new Map(writes.map((write) => [`${write.kind}/${write.key}`, write]))
    const after = this.#draft.troubles()
    for (const trouble of after) {
      const cell = trouble.cells.find((name) => touched.has(name))
      const write = cell === undefined ? undefined : touched.get(cell)
      if (write !== undefined) throw wordedFor(write, trouble, this.#draft.compile().settings)
    }
    const [first] = after
    if (first === undefined || after.length < this.#troubles.length) return
    throw new RefusalError(
      'conflict',
      null,
      `A change now would not come into force: ${first.refusal.message}`,
      first.refusal.advice,
    )
  }

  /** `keys` of `cell`'s kind must hold nothing that the form of `seen` did not show. */
  #refuseStale(cell: string, keys: readonly string[], seen: string | null): void {
    if (seen === null) return
    const shown = readSeen(seen)
    const [kind, name] = partsOf(cell)
    for (const key of keys) {
      const known = this.#rows.cell(kind, key)
      if (known === null) continue
      if (known.heads.every(({ writer, seq }) => covers(shown, writer, seq))) continue
      const { author, stamp, value } = forceOf(kind, key, known)
      const now = value === null ? 'removed' : kind === 'setting' ? `set to ${value}` : 'changed'
      throw new RefusalError(
        'conflict',
        kind === 'setting' ? name : null,
        `${spoken(key)} was ${now} by ${author} at ${isoTime(wallMsOf(stamp))}, after you were shown it.`,
        'Look at it again, then enter the value that you want.',
      )
    }
  }

  #refuseChangedSince({ key, id }: Change): void {
    const later = this.#ledger.since(aboutOf(key), id).flatMap((line) => readChange(line) ?? [])
    const newest = later.find((other) => isWithin(other.key, key) || isWithin(key, other.key))
    if (newest !== undefined) {
      throw new RefusalError(
        'conflict',
        'id',
        `${spoken(newest.key)} was changed again by ${newest.author} at ${isoTime(newest.atMs)}.`,
        'Undo that change first, or enter the value that you want.',
      )
    }
    if (this.#isDisputed(...partsOf(key))) {
      throw new RefusalError(
        'conflict',
        'id',
        `${key} has two values, set on two nodes at the same time.`,
        'Keep one of them first.',
      )
    }
  }

  #refuseTooMany(): void {
    if (this.#draft.domainCount < DOMAINS_MAX) return
    throw new RefusalError(
      'invalid',
      'name',
      `There are already ${DOMAINS_MAX} domains.`,
      'Remove one that is not used any more.',
    )
  }

  #isDisputed(kind: string, key: string): boolean {
    const cell = this.#rows.cell(kind, key)
    return cell !== null && isDisputed(kind, cell)
  }
}

/** A configuration less what does not hold in it: the last resort. */
function usable(cells: ReadonlyMap<string, string>, observer: Observer): Draft {
  const draft = new Draft()
  for (const [cell, value] of cells) draft.put(...partsOf(cell), value)
  for (;;) {
    const [trouble] = draft.troubles()
    if (trouble === undefined) return draft
    const [cell = ''] = trouble.cells
    // Without its thresholds a domain has those of the settings; without the rest it is another.
    const [kind, key] = partsOf(cell)
    const isDomain = kind === 'domain' && !key.endsWith('/policy')
    const dropped = isDomain
      ? [cell, `domain/${key.split('/')[0]}`]
      : kind === 'domain'
        ? [cell]
        : trouble.cells
    for (const name of dropped) draft.put(...partsOf(name), null)
    const named = trouble.cells.join(', ')
    observer.emit('config.ignored', { key: named, cause: trouble.refusal.message })
  }
}

function stampOf(kind: string, key: string, cell: Cell): Stamp | null {
  const { value, author, stamp } = forceOf(kind, key, cell)
  return value === null ? null : { author, atMs: wallMsOf(stamp) }
}

/** `kind/key` as its two parts. */
export function partsOf(name: string): readonly [kind: string, key: string] {
  const slash = name.indexOf('/')
  return [name.slice(0, slash), name.slice(slash + 1)]
}

/** Changes of one domain belong together. */
function aboutOf(key: string): string {
  return key.startsWith('domain/') ? key.split('/').slice(0, 2).join('/') : key
}

/** `domain/a/policy` is within `domain/a`, and within itself. */
function isWithin(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(`${outer}/`)
}

function names(patch: DomainPatch, group: DomainGroup): boolean {
  if (group !== 'policy') return patch[group] !== undefined
  return [patch.hold, patch.reject, patch.enforce].some((value) => value !== undefined)
}

function given(patch: DomainPatch): DomainPatch {
  // Only keys are left out: what stays is what was there.
  return Object.fromEntries(
    Object.entries(patch).filter(([, value]) => value !== undefined),
  ) as DomainPatch
}

function readSeen(text: string): Vector {
  const seen = new Map<string, number>()
  for (const dot of text === '' ? [] : text.split(',')) {
    const [, writer = '', seq = ''] = /^([0-9a-f]{12}):(\d{1,15})$/.exec(dot) ?? []
    if (writer === '') {
      throw new RefusalError(
        'invalid',
        'seen',
        'The form does not say what it was made from.',
        'Load the page again.',
      )
    }
    seen.set(writer, Number(seq))
  }
  return seen
}

function refuseTooLong(cell: string, value: string | null): void {
  if (value === null || value.length <= VALUE_MAX) return
  const isRecipients = cell.endsWith('/recipients')
  throw new RefusalError(
    'invalid',
    isRecipients ? 'recipients' : null,
    `${cell} would have ${value.length} characters, and ${VALUE_MAX} is the most.`,
    isRecipients ? 'Accept any recipient, and let the next hop decide.' : 'Enter less.',
  )
}

/** As people and commands name it: `policy.hold`. */
function spoken(key: string): string {
  return key.replace(/^setting\//, '')
}

function notUndone(key: string, because: string): RefusalError {
  return new RefusalError(
    'invalid',
    'id',
    `A change of ${spoken(key)} cannot be undone: ${because}.`,
    'Make the opposite change instead.',
  )
}

/** The refusal of a trouble, worded for the cell that somebody is changing. */
function wordedFor({ kind, key }: CellWrite, trouble: Trouble, settings: Settings): RefusalError {
  const { cells, refusal } = trouble
  if (kind !== 'setting' || !isSettingKey(key)) return refusal
  const [first = ''] = cells
  if (first.startsWith('domain/')) {
    const [, domain = ''] = first.split('/')
    return new RefusalError(
      'invalid',
      key,
      refusal.message,
      `Change the thresholds of ${domain} first.`,
    )
  }
  if (cells.length === 1) return refusal
  try {
    checkTogether(settings, key)
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
  assert(false, `${key} does not fit what it must fit`)
}
