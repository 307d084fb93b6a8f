// The boxes over the picture: drawn, moved and resized with a pointer or the keyboard. They are elements of their own, so
// that they take focus and have labels; coordinates are picture pixels.

const STEP = 0.01; // of the picture's longer side, for a press of an arrow key
const SMALLEST = 8; // pixels
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Edit boxes on an element.
 * @param frame the element that the picture fills.
 * @param options.size () -> [width, height] of the picture, or null.
 * @param options.enabled () -> whether they may be changed now.
 * @param options.label number -> what a screen reader says.
 * @param options.onChange (index, box) while one changes; index is the number of boxes for a new one. Returns its index.
 * @param options.onSelect, options.onRemove (index).
 * @param options.drawing () -> whether the next drag draws, wherever it begins.
 */
export function editBoxes(frame, layer, { size, enabled, label, onChange, onSelect, onRemove, drawing }) {
  let boxes = [];
  let drag = null; // {index, box, corner, from}

  const inPicture = (event) => {
    const place = frame.getBoundingClientRect(), [width, height] = size();
    return [((event.clientX - place.left) / place.width) * width, ((event.clientY - place.top) / place.height) * height];
  };

  frame.addEventListener("pointerdown", (event) => {
    if (!enabled() || event.button !== 0) return;
    const element = event.target.closest(".box"), from = inPicture(event);
    if (element && !drawing()) {
      const index = [...layer.children].indexOf(element);
      onSelect(index);
      drag = { index, box: [...boxes[index]], corner: event.target.dataset.corner, from };
    } else drag = { index: boxes.length, box: [...from, 0, 0], corner: "11", from };
    frame.setPointerCapture(event.pointerId);
    event.preventDefault();
    layer.children[drag.index]?.focus({ preventScroll: true });
  });

  frame.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = inPicture(event), box = moved(drag.box, drag.corner, x - drag.from[0], y - drag.from[1]);
    if (box[2] >= SMALLEST && box[3] >= SMALLEST) drag.index = onChange(drag.index, box);
  });

  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => (drag = null));

  layer.addEventListener("keydown", (event) => {
    const index = [...layer.children].indexOf(event.target);
    if (index < 0 || !enabled()) return;
    if (event.key in ARROWS) {
      const step = STEP * Math.max(...size()), [x, y] = ARROWS[event.key];
      const box = moved(boxes[index], event.shiftKey ? "11" : undefined, x * step, y * step);
      if (box[2] >= SMALLEST && box[3] >= SMALLEST) onChange(index, box);
    } else if (event.key === "Delete" || event.key === "Backspace") onRemove(index);
    else return;
    event.preventDefault();
  });
  layer.addEventListener("focusin", (event) => {
    const index = [...layer.children].indexOf(event.target);
    if (index >= 0) onSelect(index);
  });

  return {
    /** Show these boxes; `selected` is the index of the one with handles. */
    show(list, selected) {
      boxes = list;
      while (layer.children.length > list.length) layer.lastChild.remove();
      while (layer.children.length < list.length) layer.append(newBox());
      const [width, height] = size() ?? [1, 1];
      list.forEach(([x, y, boxWidth, boxHeight], index) => {
        const element = layer.children[index];
        element.ariaLabel = label(index + 1);
        element.classList.toggle("selected", index === selected);
        const percent = { left: x / width, top: y / height, width: boxWidth / width, height: boxHeight / height };
        for (const [side, part] of Object.entries(percent)) element.style[side] = `${100 * part}%`;
      });
    },
    focus: (index) => layer.children[index]?.focus({ preventScroll: true }),
    isDragging: () => drag !== null,
  };
}

/** A box moved as a whole, or by one corner ("00" is left top, "11" right bottom), never turned inside out. */
function moved([x, y, width, height], corner, dx, dy) {
  if (corner === undefined) return [x + dx, y + dy, width, height];
  let [left, top, right, bottom] = [x, y, x + width, y + height];
  if (corner[0] === "0") left += dx;
  else right += dx;
  if (corner[1] === "0") top += dy;
  else bottom += dy;
  return [Math.min(left, right), Math.min(top, bottom), Math.abs(right - left), Math.abs(bottom - top)];
}

function newBox() {
  const element = document.createElement("div");
  element.className = "box";
  element.tabIndex = 0;
  element.setAttribute("role", "group");
  for (const corner of ["00", "10", "01", "11"]) {
    const handle = document.createElement("span");
    handle.dataset.corner = corner;
    element.append(handle);
  }
  return element;
}
