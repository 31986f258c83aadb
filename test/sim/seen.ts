/** What must happen somewhere in the seeds, or they prove nothing (faults.md, Simulation). */

export const SOMETIMES: readonly string[] = [
  'conflicting edit',
  'merge after tombstone collection',
  'double release attempt',
  'SQLITE_FULL during apply',
  'parked row applied later',
  'relay because of a missing link',
  'clone detected',
  'rollback with fresh writer',
  'catch-up from zero',
  'unknown kind survived',
  'removed node tried again',
  'partition healed with edits on both sides',
]

/** In how many seeds each thing was seen. */
export class Seen {
  readonly seeds = new Map<string, number>()

  add(seen: ReadonlyMap<string, number>): void {
    for (const what of seen.keys()) this.seeds.set(what, (this.seeds.get(what) ?? 0) + 1)
  }

  never(expected: readonly string[]): readonly string[] {
    return expected.filter((what) => !this.seeds.has(what))
  }
}
