/** YARA rules of the operator over every file, and over what archives and documents hold. */
import type { Finding } from '../../message/verdict.ts'
import { type Files, filesOf } from './files.ts'
import type { Inspector } from './look.ts'

export const yara: Inspector = {
  name: 'yara',
  inspect: (look) => {
    if (Object.keys(look.config.detection.yara).length === 0) return []
    const files = filesOf(look)
    return files instanceof Promise ? files.then(tell) : tell(files)
  },
}

/** @throws Error when the rules could not be run: unknown, not clean */
function tell({ yara: found }: Files): readonly Finding[] {
  if (typeof found === 'string') throw new Error(found)
  return found ?? []
}
