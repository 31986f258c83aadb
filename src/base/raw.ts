/** The reading of what came from outside as JSON, where each finding names its field. */
import { RefusalError } from './errors.ts'

export type Raw = Readonly<Record<string, unknown>>

export function isRecord(raw: unknown): raw is Raw {
  return typeof raw === 'object' && raw !== null && !Array.isArray(raw)
}

/** Its fields; of what is no record none. */
export function fieldsOf(raw: unknown): Raw {
  return isRecord(raw) ? raw : {}
}

/** A whole number from 0 on. */
export function isCount(raw: unknown): raw is number {
  return Number.isSafeInteger(raw) && (raw as number) >= 0
}

/** Checks a row of another node, for which `what` stands in a sentence ("A row of a peer"). */
export class RowCheck {
  readonly #what: string

  constructor(what: string) {
    this.#what = what
  }

  /** @throws RefusalError invalid */
  object(raw: unknown, field: string): Raw {
    if (!isRecord(raw)) throw this.wrong(field)
    return raw
  }

  /** At most `most` items. @throws RefusalError invalid */
  array(raw: unknown, field: string, most: number): readonly unknown[] {
    if (!Array.isArray(raw) || raw.length > most) throw this.wrong(field)
    return raw
  }

  wrong(field: string): RefusalError {
    return new RefusalError(
      'invalid',
      field,
      `${this.#what} is not valid: its field ${field} is not what it must be.`,
      'Both nodes should run the same version, or one version apart.',
    )
  }
}
