/** A clock that stands still until a test moves it. */
import type { Clock, Timer } from '../src/base/clock.ts'

type Planned = { readonly atMs: number; readonly run: () => void }

export class ManualClock implements Clock {
  #mono = 0
  #wall: number
  #planned: Planned[] = []

  constructor(wallMs = Date.UTC(2026, 10, 22, 12)) {
    this.#wall = wallMs
  }

  wallMs(): number {
    return this.#wall
  }

  monoMs(): number {
    return this.#mono
  }

  bootMs(): number {
    return this.monoMs()
  }

  after(delayMs: number, run: () => void): Timer {
    const planned = { atMs: this.#mono + Math.max(0, delayMs), run }
    this.#planned.push(planned)
    return {
      cancel: () => {
        this.#planned = this.#planned.filter((other) => other !== planned)
      },
    }
  }

  /** Puts the wall clock forward or back by `ms`; nothing falls due. */
  setWall(ms: number): void {
    this.#wall += ms
  }

  /** Runs everything that falls due within `ms`, in order, each at its own time. */
  advance(ms: number): void {
    const endMs = this.#mono + ms
    for (;;) {
      const next = this.#planned
        .filter(({ atMs }) => atMs <= endMs)
        .sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined) break
      this.#planned = this.#planned.filter((other) => other !== next)
      this.#move(next.atMs - this.#mono)
      next.run()
    }
    this.#move(endMs - this.#mono)
  }

  #move(ms: number): void {
    this.#mono += ms
    this.#wall += ms
  }
}
