/**
 * Values of one cell that were set on several nodes at the same time: which there are, and how a
 * person ends it by keeping one. One of them is in force on every node meanwhile, the same.
 */
import { createHash } from 'node:crypto'
import { RefusalError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import { CELL_KINDS, domainOfKey, forceOf, isDisputed } from '../config/cells.ts'
import type { Cell, Head, WriterId } from '../config/merge.ts'
import { wallMsOf } from '../config/stamp.ts'
import { type CellWrite, type Changes, partsOf } from './changes.ts'
import type { SharedRows } from './shared.ts'

export type Side = {
  readonly id: string
  /** JSON; null: deleted. A secret is not shown. */
  readonly value: string | null
  readonly by: string
  readonly node: string
  readonly atMs: number
}
/** The side in force first. */
export type Conflict = { readonly key: string; readonly sides: readonly Side[] }

export class Conflicts {
  readonly #rows: SharedRows
  readonly #changes: Changes
  readonly #observer: Observer
  readonly #nodeNameOf: (writer: WriterId) => string
  /** Names of disputed cells. */
  readonly #disputed = new Set<string>()

  /** Before `rows.start`; then `load`. */
  constructor(
    rows: SharedRows,
    changes: Changes,
    deps: { readonly observer: Observer; readonly nodeNameOf: (writer: WriterId) => string },
  ) {
    this.#rows = rows
    this.#changes = changes
    this.#observer = deps.observer
    this.#nodeNameOf = deps.nodeNameOf
    for (const kind of CELL_KINDS) {
      rows.onChange(kind, ({ keys }) => {
        for (const key of keys) this.#look(kind, key, rows.cell(kind, key))
      })
    }
  }

  /** @throws StoreError */
  load(): void {
    for (const kind of CELL_KINDS) {
      for (const { key, state } of this.#rows.list(kind)) {
        if (state.shape === 'cell') this.#look(kind, key, state)
      }
    }
  }

  get count(): number {
    return this.list().length
  }

  /** By name. @throws StoreError */
  list(): readonly Conflict[] {
    return [...this.#disputed].sort().flatMap((name) => this.#conflict(name) ?? [])
  }

  /**
   * Writes the value of one side over all of them, and notes it in the history.
   * @throws RefusalError notFound; conflict when the sides are others by now; invalid when that
   * value does not hold; StoreError
   */
  keep(author: string, name: string, side: string): void {
    const [kind, key] = partsOf(name)
    const cell = this.#conflict(name) === null ? null : this.#rows.cell(kind, key)
    if (cell === null) {
      throw new RefusalError(
        'notFound',
        'key',
        `${name.slice(0, 100)} has one value only.`,
        'Load the list again: somebody may have kept a value already.',
      )
    }
    const heads = sidesOf(kind, key, cell)
    const kept = heads.find((head) => sideId(cell, head) === side)
    if (kept === undefined) {
      throw new RefusalError(
        'conflict',
        'side',
        `The values of ${name} are others by now.`,
        'Look at them again, then keep one.',
      )
    }
    if (kind === 'domain' && !key.includes('/') && kept.value === null)
      return this.#changes.removeDomain(author, key)
    const other = heads.find((head) => head !== kept)
    const writes: CellWrite[] = [{ kind, key, value: kept.value }]
    const [domain, group] = domainOfKey(key)
    if (kind === 'domain' && group !== '') writes.push({ kind, key: domain, value: '{}' })
    const note = {
      key: name,
      before: shown(name, other?.value ?? null),
      after: shown(name, kept.value),
    }
    this.#changes.write(author, writes, [note])
  }

  #look(kind: string, key: string, cell: Cell | null): void {
    const name = `${kind}/${key}`
    if (cell === null || !isDisputed(kind, cell)) this.#disputed.delete(name)
    else if (!this.#disputed.has(name)) {
      this.#disputed.add(name)
      this.#observer.emit('config.disputed', { key: name })
    }
  }

  #conflict(name: string): Conflict | null {
    if (!this.#disputed.has(name)) return null
    const [kind, key] = partsOf(name)
    const cell = this.#rows.cell(kind, key)
    if (cell === null || !this.#concernsSomething(kind, key)) return null
    return {
      key: name,
      sides: sidesOf(kind, key, cell).map((head) => ({
        id: sideId(cell, head),
        value: shown(name, head.value),
        by: head.author,
        node: this.#nodeNameOf(head.writer),
        atMs: wallMsOf(head.stamp),
      })),
    }
  }

  /** A field of a domain or an operator that is gone asks nobody anything. */
  #concernsSomething(kind: string, key: string): boolean {
    if (!key.includes('/') || (kind !== 'domain' && kind !== 'operator')) return true
    const [owner = ''] = key.split('/')
    const cell = this.#rows.cell(kind, owner)
    return cell !== null && forceOf(kind, owner, cell).value !== null
  }
}

/** One head a value, the one in force first, then the latest first. */
function sidesOf(kind: string, key: string, cell: Cell): readonly Head[] {
  const first = forceOf(kind, key, cell)
  const rest = cell.heads
    .filter((head) => head !== first)
    .sort((a, b) => b.stamp - a.stamp || (a.writer < b.writer ? 1 : -1))
  const values = new Set<string | null>()
  return [first, ...rest].filter(({ value }) => {
    if (values.has(value)) return false
    values.add(value)
    return true
  })
}

/** Changes with any of the heads: whoever keeps a side has seen all of them. */
function sideId(cell: Cell, { writer, seq }: Head): string {
  const all = cell.heads.map((head) => `${head.writer}.${head.seq}`).join(' ')
  return `${writer}.${seq}.${createHash('sha256').update(all).digest('hex').slice(0, 12)}`
}

/** The hash of a password is for nobody's eyes. */
function shown(name: string, value: string | null): string | null {
  return value !== null && /^operator\/[^/]+\/password$/.test(name) ? '"a password"' : value
}
