/** What was done, told once on the next page of the same session. */

export type Flash = {
  readonly words: string
  readonly kind: 'done' | 'failed'
  /** The change that one button takes back; null when there is none. */
  readonly undo: string | null
}

/** Sessions with something to tell; the one that waits longest goes first. */
const SESSIONS_MAX = 500
const EACH_MAX = 5

export class Flashes {
  readonly #waiting = new Map<string, readonly Flash[]>()

  /** Nobody signed in has nothing told. */
  add(session: string | null, words: string, about: Partial<Omit<Flash, 'words'>> = {}): void {
    if (session === null) return
    const flash: Flash = { words, kind: about.kind ?? 'done', undo: about.undo ?? null }
    const before = this.#waiting.get(session) ?? []
    this.#waiting.delete(session)
    this.#waiting.set(session, [...before, flash].slice(-EACH_MAX))
    const [oldest] = this.#waiting.keys()
    if (this.#waiting.size > SESSIONS_MAX && oldest !== undefined) this.#waiting.delete(oldest)
  }

  /** All of them, and forgets them. */
  take(session: string | null): readonly Flash[] {
    if (session === null) return []
    const flashes = this.#waiting.get(session) ?? []
    this.#waiting.delete(session)
    return flashes
  }
}
