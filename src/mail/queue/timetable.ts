/** What is to be done later, in the order in which it is due. */
import type { Clock, Timer } from '../../base/clock.ts'

/** Fewer are not worth a look at all. */
const VOIDS_MIN = 1_000

type Due = { readonly dueMono: number }

export class Timetable<Entry extends Due> {
  readonly #clock: Clock
  readonly #due: (entry: Entry) => void
  readonly #isVoid: (entry: Entry) => boolean
  /** A binary heap by due time. */
  #heap: Entry[] = []
  /** Of its entries at most so many are void. */
  #voids = 0
  #timer: Timer | null = null
  #isStopped = false

  /** `due`: called with each entry once, when its time has come; `isVoid`: nobody waits for it. */
  constructor(clock: Clock, due: (entry: Entry) => void, isVoid: (entry: Entry) => boolean) {
    this.#clock = clock
    this.#due = due
    this.#isVoid = isVoid
  }

  add(entry: Entry): void {
    push(this.#heap, entry)
    if (this.#heap[0] === entry) this.#setTimer()
  }

  /** So many more may be void: they go before they are due, as soon as they may be most of all. */
  voided(entries: number): void {
    this.#voids += entries
    if (this.#voids < VOIDS_MIN || 2 * this.#voids < this.#heap.length) return
    this.#voids = 0
    // What is in order is a heap.
    this.#heap = this.#heap
      .filter((entry) => !this.#isVoid(entry))
      .sort((a, b) => a.dueMono - b.dueMono)
    this.#setTimer()
  }

  /** Nothing is due any more. */
  stop(): void {
    this.#isStopped = true
    this.#timer?.cancel()
  }

  #setTimer(): void {
    if (this.#isStopped) return
    this.#timer?.cancel()
    const first = this.#heap[0]
    if (first === undefined) return
    const waitMs = Math.max(0, first.dueMono - this.#clock.monoMs())
    this.#timer = this.#clock.after(waitMs, () => {
      const nowMono = this.#clock.monoMs()
      while (this.#heap[0] !== undefined && this.#heap[0].dueMono <= nowMono) {
        const entry = pop(this.#heap)
        if (entry !== null) this.#due(entry)
      }
      this.#setTimer()
    })
  }
}

function push<Entry extends Due>(heap: Entry[], entry: Entry): void {
  heap.push(entry)
  let at = heap.length - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    const [above, here] = [heap[parent], heap[at]]
    if (above === undefined || here === undefined || above.dueMono <= here.dueMono) break
    heap[parent] = here
    heap[at] = above
    at = parent
  }
}

function pop<Entry extends Due>(heap: Entry[]): Entry | null {
  const first = heap[0]
  const last = heap.pop()
  if (first === undefined || last === undefined) return null
  if (heap.length === 0) return first
  heap[0] = last
  let at = 0
  for (;;) {
    const left = 2 * at + 1
    const right = left + 1
    let least = at
    if ((heap[left]?.dueMono ?? Number.POSITIVE_INFINITY) < (heap[least]?.dueMono ?? 0))
      least = left
    if ((heap[right]?.dueMono ?? Number.POSITIVE_INFINITY) < (heap[least]?.dueMono ?? 0))
      least = right
    if (least === at) return first
    const [a, b] = [heap[at], heap[least]]
    if (a === undefined || b === undefined) return first
    heap[at] = b
    heap[least] = a
    at = least
  }
}
