/** EICAR: the harmless file that every virus scanner must find; and what no scanner could see. */
import { filesOf } from './files.ts'
import type { Inspector } from './look.ts'

export const eicar: Inspector = {
  name: 'eicar',
  inspect: (look) => {
    const files = filesOf(look)
    return files instanceof Promise ? files.then((late) => late.eicar) : files.eicar
  },
}
