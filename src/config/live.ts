/** The one mutable reference to the current snapshot, and who is told when it changes. */
import { EMPTY_SNAPSHOT, type Snapshot } from './snapshot.ts'

export class LiveConfig {
  #current: Snapshot = EMPTY_SNAPSHOT
  readonly #listeners: ((snapshot: Snapshot, before: Snapshot) => void)[] = []

  get current(): Snapshot {
    return this.#current
  }

  /** Makes `next` the configuration of every mail that begins from here on. */
  swap(next: Snapshot): void {
    const before = this.#current
    this.#current = Object.freeze(next)
    for (const listener of this.#listeners) listener(this.#current, before)
  }

  /** For the few that must react (listeners, queue); stages get the snapshot as an argument. */
  onChange(listener: (snapshot: Snapshot, before: Snapshot) => void): void {
    this.#listeners.push(listener)
  }
}
