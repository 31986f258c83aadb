/**
 * The one door for settings and domains: cells with natural keys, the history of every change,
 * and the snapshot that is in force. What was committed is announced, nothing else is.
 */
import { and, type Column, desc, eq, lte, sql } from 'drizzle-orm'
import { type Clock, isoTime } from '../base/clock.ts'
import { messageOf, RefusalError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import type { LiveConfig } from '../config/live.ts'
import {
  checkTogether,
  initialSettings,
  isSettingKey,
  type SettingKey,
  type Settings,
  type SettingValue,
} from '../config/schema.ts'
import type { Domain, Snapshot } from '../config/snapshot.ts'
import {
  checkDomain,
  DOMAINS_MAX,
  domainCell,
  readDomainCell,
  readSetting,
} from '../config/validate.ts'
import type { StoreDatabase } from './db.ts'
import { cells, changes } from './tables.ts'

/** Changes that are remembered; older ones go. */
const HISTORY_MAX = 10_000

export type Change = {
  readonly seq: number
  readonly key: string
  readonly author: string
  readonly atMs: number
  /** JSON; null: the cell was not there. */
  readonly before: string | null
  readonly after: string | null
}

export type Stamp = { readonly author: string; readonly atMs: number }

type Parsed = {
  readonly settings: Map<SettingKey, SettingValue>
  readonly domains: Map<string, Domain>
}

export class Changes {
  readonly #store: StoreDatabase
  readonly #live: LiveConfig
  readonly #clock: Clock
  readonly #observer: Observer

  constructor(
    store: StoreDatabase,
    live: LiveConfig,
    deps: { readonly clock: Clock; readonly observer: Observer },
  ) {
    this.#store = store
    this.#live = live
    this.#clock = deps.clock
    this.#observer = deps.observer
  }

  /**
   * Puts the stored configuration in force; for the start. A cell that no longer holds is not
   * used: its last value that does is, and the observer is told. @throws StoreError
   */
  load(): void {
    const stored = this.#store.attempt(() => this.#store.query.select().from(cells).all())
    const parsed: Parsed = { settings: new Map(), domains: new Map() }
    for (const { key, value } of stored) {
      if (!parseInto(parsed, key, value)) this.#fallBack(parsed, key)
    }
    this.#live.swap(this.#snapshotOf(parsed))
  }

  /**
   * Sets one setting; `raw` as `readSetting` takes it. Durable and in force when it returns; a
   * value that is in force already is no change. @throws RefusalError, StoreError; nothing changed
   */
  setSetting(author: string, key: SettingKey, raw: unknown): void {
    const value = readSetting(key, raw)
    const { settings, domains } = this.#live.current
    // The map of all settings is typed by key; one of them is replaced by a value of its reader.
    const next = { ...settings, [key]: value } as Settings
    checkTogether(next, key)
    for (const domain of domains.values()) this.#checkDomain(domain, next, key)
    this.#commit(author, `setting/${key}`, JSON.stringify(value))
    this.#live.swap({ settings: Object.freeze(next), domains })
  }

  /** Adds or replaces a domain; as `setSetting`. */
  putDomain(author: string, domain: Domain): void {
    const { settings, domains } = this.#live.current
    checkDomain(domain, settings)
    if (!domains.has(domain.name) && domains.size >= DOMAINS_MAX) {
      throw new RefusalError(
        'invalid',
        'name',
        `There are already ${DOMAINS_MAX} domains.`,
        'Remove one that is not used any more.',
      )
    }
    this.#commit(author, `domain/${domain.name}`, JSON.stringify(domainCell(domain)))
    this.#live.swap({ settings, domains: new Map(domains).set(domain.name, Object.freeze(domain)) })
  }

  /** @throws RefusalError notFound, StoreError */
  removeDomain(author: string, name: string): void {
    const { settings, domains } = this.#live.current
    if (!domains.has(name)) {
      throw new RefusalError(
        'notFound',
        'name',
        `There is no domain ${JSON.stringify(name.slice(0, 100))}.`,
        'See the list of domains for the names that there are.',
      )
    }
    this.#commit(author, `domain/${name}`, null)
    const rest = new Map(domains)
    rest.delete(name)
    this.#live.swap({ settings, domains: rest })
  }

  /** Notes a change of something that is no cell, e.g. `operator/ruiz`. Inside a transaction. */
  note(author: string, key: string, before: string | null, after: string | null): void {
    this.#write({ author, key, before, after })
  }

  /** Who set a cell last and when; null: never set. @throws StoreError */
  stamp(key: string): Stamp | null {
    const row = this.#store.attempt(() =>
      this.#store.query
        .select({ author: cells.author, atMs: cells.changedMs })
        .from(cells)
        .where(eq(cells.key, key))
        .get(),
    )
    return row ?? null
  }

  /** Stamps of all cells by key. @throws StoreError */
  stamps(): ReadonlyMap<string, Stamp> {
    const rows = this.#store.attempt(() =>
      this.#store.query
        .select({ key: cells.key, author: cells.author, atMs: cells.changedMs })
        .from(cells)
        .all(),
    )
    return new Map(rows.map(({ key, author, atMs }) => [key, { author, atMs }]))
  }

  /** Newest first; texts longer than `textMax` characters are cut. @throws StoreError */
  history(limit: number, textMax = 2_000): readonly Change[] {
    const cut = (column: Column) =>
      sql<
        string | null
      >`iif(length(${column}) > ${textMax}, substr(${column}, 1, ${textMax}) || '…', ${column})`
    return this.#store.attempt(() =>
      this.#store.query
        .select({
          seq: changes.seq,
          key: changes.key,
          author: changes.author,
          atMs: changes.atMs,
          before: cut(changes.before),
          after: cut(changes.after),
        })
        .from(changes)
        .orderBy(desc(changes.seq))
        .limit(limit)
        .all(),
    )
  }

  /** One change, whole; null when it is not remembered. @throws StoreError */
  change(seq: number): Change | null {
    return this.#store.attempt(
      () => this.#store.query.select().from(changes).where(eq(changes.seq, seq)).get() ?? null,
    )
  }

  /**
   * Puts back what was before change `seq`, as a change of its own. Gives its key.
   * @throws RefusalError notFound; conflict when the cell was changed again since; invalid
   */
  undo(author: string, seq: number): string {
    const change = this.change(seq)
    if (change === null) {
      throw new RefusalError(
        'notFound',
        'id',
        `There is no change ${seq}.`,
        'See the history for the numbers that there are.',
      )
    }
    const { key, before } = change
    const newest = this.#store.attempt(() =>
      this.#store.query
        .select()
        .from(changes)
        .where(eq(changes.key, key))
        .orderBy(desc(changes.seq))
        .limit(1)
        .get(),
    )
    if (newest !== undefined && newest.seq !== seq) {
      throw new RefusalError(
        'conflict',
        'id',
        `${key} was changed again by ${newest.author} at ${isoTime(newest.atMs)}.`,
        `Undo change ${newest.seq} first, or enter the value that you want.`,
      )
    }
    const [kind, name] = partsOf(key)
    if (kind === 'setting' && isSettingKey(name)) {
      if (before === null) this.#unsetSetting(author, name)
      else this.setSetting(author, name, JSON.parse(before))
    } else if (kind === 'domain') {
      if (before === null) this.removeDomain(author, name)
      else this.putDomain(author, readDomainCell(name, JSON.parse(before)))
    } else {
      throw new RefusalError(
        'invalid',
        'id',
        `A change of ${key} cannot be undone.`,
        'Make the opposite change instead.',
      )
    }
    return key
  }

  /** Back to the initial value, which is then followed when a later version changes it. */
  #unsetSetting(author: string, key: SettingKey): void {
    const { settings, domains } = this.#live.current
    const next = { ...settings, [key]: initialSettings()[key] } as Settings
    checkTogether(next, key)
    for (const domain of domains.values()) this.#checkDomain(domain, next, key)
    this.#commit(author, `setting/${key}`, null)
    this.#live.swap({ settings: Object.freeze(next), domains })
  }

  /** A setting must not break the thresholds of a domain that gives only one of the two. */
  #checkDomain(domain: Domain, settings: Settings, key: SettingKey): void {
    if (key !== 'policy.hold' && key !== 'policy.reject') return
    try {
      checkDomain(domain, settings)
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error
      throw new RefusalError(
        'invalid',
        key,
        error.message,
        `Change the thresholds of ${domain.name} first.`,
      )
    }
  }

  #commit(author: string, key: string, after: string | null): void {
    const changed = this.#store.transact(() => {
      const { query } = this.#store
      const before = query.select().from(cells).where(eq(cells.key, key)).get()?.value ?? null
      if (before === after) return false
      const changedMs = this.#clock.wallMs()
      if (after === null) query.delete(cells).where(eq(cells.key, key)).run()
      else {
        query
          .insert(cells)
          .values({ key, value: after, author, changedMs })
          .onConflictDoUpdate({ target: cells.key, set: { value: after, author, changedMs } })
          .run()
      }
      this.#write({ author, key, before, after })
      return true
    })
    if (changed) this.#observer.emit('config.changed', { key, by: author })
  }

  #write(change: Omit<Change, 'seq' | 'atMs'>): void {
    const { query } = this.#store
    const { seq } = query
      .insert(changes)
      .values({ ...change, atMs: this.#clock.wallMs() })
      .returning({ seq: changes.seq })
      .get()
    query
      .delete(changes)
      .where(lte(changes.seq, seq - HISTORY_MAX))
      .run()
  }

  /** The newest earlier value of a cell that still holds, when there is one. */
  #fallBack(parsed: Parsed, key: string): void {
    const earlier = this.#store.attempt(() =>
      this.#store.query
        .select({ value: changes.after })
        .from(changes)
        .where(and(eq(changes.key, key), sql`${changes.after} is not null`))
        .orderBy(desc(changes.seq))
        .limit(50)
        .all(),
    )
    const found = earlier.some(({ value }) => value !== null && parseInto(parsed, key, value))
    this.#observer.emit('config.ignored', {
      key,
      used: found ? 'the last value that holds' : 'the initial value, or none',
    })
  }

  /** Values that hold alone and not together fall back to the initial ones. */
  #snapshotOf({ settings, domains }: Parsed): Snapshot {
    let all = { ...initialSettings(), ...Object.fromEntries(settings) } as Settings
    for (const key of settings.keys()) {
      try {
        checkTogether(all, key)
      } catch (error) {
        if (!(error instanceof RefusalError)) throw error
        this.#observer.emit('config.ignored', {
          key,
          used: 'the initial value',
          cause: messageOf(error),
        })
        const initial = initialSettings()
        all = {
          ...all,
          'policy.hold': initial['policy.hold'],
          'policy.reject': initial['policy.reject'],
          'queue.first': initial['queue.first'],
          'queue.longest': initial['queue.longest'],
        }
        break
      }
    }
    return { settings: Object.freeze(all), domains }
  }
}

/** False when the stored text is no value of that cell. Unknown keys are left alone: true. */
function parseInto(parsed: Parsed, key: string, value: string): boolean {
  const [kind, name] = partsOf(key)
  try {
    if (kind === 'setting' && isSettingKey(name)) {
      parsed.settings.set(name, readSetting(name, JSON.parse(value)))
    } else if (kind === 'domain') {
      parsed.domains.set(name, readDomainCell(name, JSON.parse(value)))
    }
    return true
  } catch (error) {
    if (error instanceof RefusalError || error instanceof SyntaxError) return false
    throw error
  }
}

function partsOf(key: string): readonly [kind: string, name: string] {
  const slash = key.indexOf('/')
  return [key.slice(0, slash), key.slice(slash + 1)]
}
