/**
 * Records of signing keys that the DNS was found not to have. Shared, so that whichever node asked
 * the DNS, every node tells it. One owned row for each key that was ever missed; its version is the
 * wall time of the look, so of two looks apart the later one counts.
 */
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import { recordName, type SigningKey } from '../config/signing.ts'
import type { SharedRows } from './shared.ts'

const KIND = 'dkim-record'
/** What nobody confirms for so long, since no name server says anything, is not known any more. */
const KEPT_MS = 7 * 86_400_000

export type MissingRecord = {
  /** What the DNS has instead: a sentence. */
  readonly why: string
  /** Wall ms of the first look that missed it. */
  readonly sinceMs: number
}

type KeyName = Pick<SigningKey, 'domain' | 'selector'>

export class KeyRecords {
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer

  constructor(rows: SharedRows, deps: { readonly clock: Clock; readonly observer: Observer }) {
    this.#rows = rows
    this.#clock = deps.clock
    this.#observer = deps.observer
  }

  /** By `DOMAIN/SELECTOR`; also of keys that are gone since. @throws StoreError */
  missing(): ReadonlyMap<string, MissingRecord> {
    const nowMs = this.#clock.wallMs()
    const missing = new Map<string, MissingRecord>()
    for (const { key, state } of this.#rows.list(KIND)) {
      if (state.shape !== 'owned' || state.value === null || (state.untilMs ?? 0) <= nowMs) continue
      const record = readMissing(state.value)
      if (record !== null) missing.set(key, record)
    }
    return missing
  }

  /** `why` null: the DNS has it. Not to be called when nobody knows. @throws StoreError */
  note(key: KeyName, why: string | null): void {
    const name = nameOf(key)
    const known = this.missing().get(name) ?? null
    if (why === null && known === null) return
    const nowMs = this.#clock.wallMs()
    const before = this.#rows.owned(KIND, name)?.version[0] ?? 0
    const value = why === null ? null : JSON.stringify({ why, sinceMs: known?.sinceMs ?? nowMs })
    const version = [Math.max(nowMs, before + 1), 0] as const
    this.#rows.put(KIND, name, version, value, 'postern', nowMs + KEPT_MS)
    const record = recordName(key)
    if (why === null) this.#observer.emit('signing.found', { record })
    else if (known === null) this.#observer.emit('signing.lost', { record, cause: why })
  }
}

/** As `missing` names a key. */
export function nameOf({ domain, selector }: KeyName): string {
  return `${domain}/${selector}`
}

/** Null: of a later version. */
function readMissing(text: string): MissingRecord | null {
  const { why, sinceMs } = JSON.parse(text) as {
    readonly why?: unknown
    readonly sinceMs?: unknown
  }
  return typeof why === 'string' && typeof sinceMs === 'number' ? { why, sinceMs } : null
}
