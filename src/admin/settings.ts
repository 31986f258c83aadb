/** Settings and the history of changes. */

import { LIST_MAX } from '../base/limits.ts'
import type { LiveConfig } from '../config/live.ts'
import { SETTINGS, type SettingKey } from '../config/schema.ts'
import { readSettingKey } from '../config/validate.ts'
import type { Changes, Stamp } from '../store/changes.ts'
import { mustAct } from './authorise.ts'
import type { Admin, SettingRow } from './contract.ts'

type SettingsPart = Pick<
  Admin,
  'settings' | 'setting' | 'setSetting' | 'seenOf' | 'changes' | 'undoChange'
>

export function settingsPart(deps: {
  readonly live: LiveConfig
  readonly changes: Changes
}): SettingsPart {
  const { live, changes } = deps
  const rowOf = (key: SettingKey, stamp: Stamp | null): SettingRow => ({
    key,
    value: live.current.settings[key],
    initial: SETTINGS[key].initial,
    changedBy: stamp?.author ?? null,
    changedMs: stamp?.atMs ?? null,
  })
  return {
    settings() {
      const stamps = changes.stamps()
      // The keys of a constant object are its key type.
      return (Object.keys(SETTINGS) as SettingKey[]).map((key) =>
        rowOf(key, stamps.get(`setting/${key}`) ?? null),
      )
    },

    setting(rawKey) {
      const key = readSettingKey(rawKey)
      return rowOf(key, changes.stamp(`setting/${key}`))
    },

    setSetting(author, rawKey, value, seen) {
      mustAct(author)
      const key = readSettingKey(rawKey)
      changes.setSetting(author.name, key, value, seen ?? null)
      return rowOf(key, changes.stamp(`setting/${key}`))
    },

    seenOf: (key) => changes.seenOf(key),

    changes: (limit) =>
      changes
        .history(Math.min(Math.max(1, Math.floor(limit) || 1), LIST_MAX))
        .map(({ author, isCut: _, ...rest }) => ({ by: author, ...rest })),

    undoChange(author, id) {
      mustAct(author)
      return changes.undo(author.name, id)
    },
  }
}
