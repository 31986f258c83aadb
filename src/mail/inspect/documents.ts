/** Documents that act by themselves: macros, scripts, links to code, files in them. */
import { type Files, filesOf } from './files.ts'
import type { Inspector, Look } from './look.ts'

export const documents: Inspector = {
  name: 'documents',
  inspect: (look) => {
    const files = filesOf(look)
    return files instanceof Promise ? files.then((late) => tell(look, late)) : tell(look, files)
  },
}

function tell({ note }: Look, { documents: found, urls }: Files): Files['documents'] {
  if (urls.length > 0) note({ urls })
  return found
}
